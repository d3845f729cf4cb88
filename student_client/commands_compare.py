"""`student-client compare`: methods side by side."""

from __future__ import annotations

import json as jsonlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ktan.errors import UserError
from ktan.parallel import group_of
from ktan.teachers.live import Draw
from ktan.trainer import TrainerOptions
from student_client.comparison.files import CSV, JSON, MARKDOWN, PICTURE
from student_client.comparison.options import Comparison, parse_methods, parse_seeds
from student_client.comparison.running import compare
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
from student_client.options import StudentOptions
from student_client.screen import Screen


@dataclass(frozen=True)
class ComparedStudent(StudentOptions):
    """The student's network; its method is the comparison's to vary."""

    method: Annotated[str | None, Parameter(parse=False)] = None


@dataclass(frozen=True)
class ComparedTraining(TrainerOptions):
    """How all students are trained, by one process; the seed is the comparison's to vary."""

    seed: Annotated[int, Parameter(parse=False)] = 0
    shard: Annotated[bool, Parameter(parse=False)] = False


Student = Annotated[ComparedStudent, STUDENT]
Training = Annotated[ComparedTraining, TRAINING]
_STUDENT = ComparedStudent()
_TRAINER = ComparedTraining()


def compare_methods(
    *,
    methods: str,
    out: Path,
    seeds: str = "0,1,2",
    local: Path | None = None,
    local_draw: Draw = "mean",
    remote: str | None = None,
    data: Data = DATA,
    recipe: Recipe = RECIPE,
    student: Student = _STUDENT,
    queries: Queries = QUERIES,
    trainer: Training = _TRAINER,
    connection: Wire = WIRE,
    together: int | None = None,
    validation: int = 0,
    skip_impossible: Flag = False,
    yes: Flag = False,
    resume: Flag = False,
    json: Flag = False,
) -> None:
    """Train a table of students: each method under each teacher, with several seeds, beside the
    student alone.

    Students of one seed begin with the same weights and see the same batches. Answers of a private
    service are asked once and shared by all of them. After ctrl-C or a crash the same command with
    --resume goes on; it may then name further methods and seeds.

    Parameters
    ----------
    methods
        Names with commas between; combinations by +, such as ktan,fitnet,ktan+byot. The student
        alone is always there.
    out
        Folder that gets everything: options, answers, students, and the table as Markdown, CSV,
        JSON and a picture.
    seeds
        Numbers with commas between.
    local
        Folder of a teacher on this machine: an exported student, a finished run, or a teacher's
        folder; or of several students, with commas between. Answers without noise:
        unprotected, for comparison.
    local_draw
        What several local teachers answer: mean, or one of them, drawn for each step.
    remote
        HOST:PORT of a private service.
    together
        Students that are trained at once, at most; all of a seed when not given.
    validation
        Labelled units that are held out of training and give each student a validation curve;
        nothing is chosen by it.
    skip_impossible
        Leave out what a teacher does not answer enough for, instead of refusing.
    yes
        Agree beforehand to what the queries cost.
    resume
        Go on with the comparison in OUT.
    json
        Print the table as one JSON object; everything else goes to standard error.
    """
    if group_of(os.environ).count > 1:
        raise UserError("a comparison runs in one process; start it without torchrun")
    screen = Screen(json=json)
    comparison = Comparison(
        methods=parse_methods(methods),
        seeds=parse_seeds(seeds),
        local=local,
        local_draw=local_draw,
        remote=remote,
        out=out,
        data=data,
        recipe=recipe,
        student=student,
        queries=queries,
        trainer=trainer,
        connection=connection,
        together=together,
        validation=validation,
        skip_impossible=skip_impossible,
    )
    content = compare(comparison, screen, resume=resume, agreed=yes)
    screen.fact("Written", ", ".join(str(out / name) for name in (MARKDOWN, CSV, JSON, PICTURE)))
    if json:
        print(jsonlib.dumps(content, indent=2, ensure_ascii=False))
