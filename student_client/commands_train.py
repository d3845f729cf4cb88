"""`student-client train`: a student on the answers of a teacher."""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import Annotated

from ktan.parallel import group_of
from ktan.trainer import TrainerOptions
from student_client.connection_options import WIRE, Flag, Wire
from student_client.option_groups import (
    DATA,
    QUERIES,
    RECIPE,
    STUDENT,
    TRAINING,
    Data,
    Queries,
    Recipe,
)
from student_client.options import CourseOptions, StudentOptions
from student_client.runs import Run, train_student
from student_client.screen import Screen

Student = Annotated[StudentOptions, STUDENT]
Course = Annotated[CourseOptions, TRAINING]
Trainer = Annotated[TrainerOptions, TRAINING]
_STUDENT = StudentOptions()
_COURSE = CourseOptions()
_TRAINER = TrainerOptions()


def train(
    teacher: str,
    *,
    out: Path,
    data: Data = DATA,
    recipe: Recipe = RECIPE,
    student: Student = _STUDENT,
    queries: Queries = QUERIES,
    course: Course = _COURSE,
    trainer: Trainer = _TRAINER,
    connection: Wire = WIRE,
    yes: Flag = False,
    resume: Flag = False,
    enough: Flag = False,
    json: Flag = False,
) -> None:
    """Train a student on the answers of a teacher; says what they cost and asks before it spends.

    Only public samples are used and sent. Each answer is paid for once and kept in OUT/answers:
    after ctrl-C or a crash the same command with --resume goes on and pays nothing twice. Under
    torchrun several processes train the one student together.

    Parameters
    ----------
    teacher
        HOST:PORT of a private service; file:DIR for a teacher's folder on this machine (without
        noise and promise: unprotected, for comparison); none for the local loss alone.
    out
        Folder that gets everything: options, answers, checkpoints, curves, result, student.
    yes
        Agree beforehand to what the queries cost.
    resume
        Go on with the run in OUT.
    enough
        With --resume: ask for nothing more; rounds that are left learn from what was answered.
    json
        Print the result as one JSON object; everything else goes to standard error.
    """
    run = Run(teacher, out, data, recipe, student, queries, trainer, connection, course)
    with group_of(os.environ).open() as group:
        screen = Screen(json=json, quiet=not group.leads)
        result = train_student(run, screen, resume=resume, agreed=yes, enough=enough, group=group)
    if not group.leads:
        return
    if json:
        print(jsonlib.dumps(result, indent=2, ensure_ascii=False))
        return
    if result["accuracy"] is not None:
        screen.fact(
            "Accuracy",
            f"{100 * result['accuracy']:.2f} % of {result['test_samples']:,} test samples, "
            "after the last step",
        )
    measured = [one for one in result.get("exits") or [] if one["accuracy"] is not None]
    if measured:
        text = ", ".join(f"{one['exit']}: {100 * one['accuracy']:.2f} %" for one in measured)
        screen.fact("Exits", f"{text} (the last is the student's own end)")
    answers = result["answers"]
    if answers and answers["label_accuracy"] is not None:
        screen.fact("Answers", f"{100 * answers['label_accuracy']:.2f} % name the true class")
    screen.fact("Privacy", result["privacy"]["sentence"])
    screen.fact("Written", f"{result['student']}, {result['curves']}")
