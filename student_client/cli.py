"""`student-client`: the trainer's command, on any host."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, Parameter

from ktan.errors import UserError
from ktan.trainer import TrainerOptions
from privacy.errors import PrivacyError, plainly
from student_client.commands_answers import answers_app
from student_client.commands_benchmark import benchmark_student
from student_client.commands_compare import compare_methods
from student_client.commands_export import export
from student_client.commands_methods import list_methods
from student_client.describe import budget_json, budget_text, describe_text, labelled
from student_client.description import to_json
from student_client.errors import TeacherUnavailable
from student_client.export import evaluate_student
from student_client.option_groups import (
    DATA,
    QUERIES,
    RECIPE,
    STUDENT,
    TRAINING,
    WIRE,
    Data,
    Flag,
    Queries,
    Recipe,
    Wire,
)
from student_client.options import CourseOptions, StudentOptions
from student_client.remote import RemoteTeacher
from student_client.runs import Run, train_student
from student_client.screen import Declined, Screen

app = App(
    name="student-client",
    help="Train a small student on the answers of a private teacher.",
    # `main` says that it stopped; cyclopts would leave without a word.
    suppress_keyboard_interrupt=False,
)
app.meta.suppress_keyboard_interrupt = False
app.command(compare_methods, name="compare")
app.command(list_methods, name="methods")
app.command(answers_app)
app.command(export, name="export")
app.command(benchmark_student, name="benchmark")

Student = Annotated[StudentOptions, STUDENT]
Course = Annotated[CourseOptions, TRAINING]
Trainer = Annotated[TrainerOptions, TRAINING]
_STUDENT = StudentOptions()
_COURSE = CourseOptions()
_TRAINER = TrainerOptions()


@app.command
def describe(address: str, *, connection: Wire = WIRE, json: Flag = False) -> None:
    """Show a teacher service: its taps with their noise and price, the methods that they serve,
    promise and budget. Free.

    Parameters
    ----------
    address
        HOST:PORT of the service.
    json
        Print one JSON object.
    """
    with RemoteTeacher(address, connection) as teacher:
        description = teacher.describe()
    if json:
        state = budget_json(description.budget, description.promise)
        _print_json({**to_json(description), "budget": state})
    else:
        print(describe_text(description))


@app.command
def budget(address: str, *, connection: Wire = WIRE, json: Flag = False) -> None:
    """Show what was spent of a service's privacy budget and what is left. Free.

    Parameters
    ----------
    address
        HOST:PORT of the service.
    json
        Print one JSON object.
    """
    with RemoteTeacher(address, connection) as teacher:
        state, promise = teacher.budget()
    if json:
        _print_json(budget_json(state, promise))
    else:
        print(budget_text(state, promise))


@app.command
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
    after ctrl-C or a crash the same command with --resume goes on and pays nothing twice.

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
    screen = Screen(json=json)
    run = Run(teacher, out, data, recipe, student, queries, trainer, connection, course)
    result = train_student(run, screen, resume=resume, agreed=yes, enough=enough)
    if json:
        _print_json(result)
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


@app.command
def evaluate(
    student: Path,
    *,
    data: Data = DATA,
    recipe: Recipe = RECIPE,
    part: Literal["test", "labelled", "unlabelled"] = "test",
    device: str = "auto",
    json: Flag = False,
) -> None:
    """Measure a student's accuracy on a public part of any data set.

    Parameters
    ----------
    student
        Folder of an exported student, or of a finished run.
    part
        Which public part of the split.
    device
        auto (the GPU when there is one), cpu or cuda.
    json
        Print one JSON object.
    """
    result = evaluate_student(student, data, recipe, part, device)
    if json:
        _print_json(result)
        return
    print(
        labelled(
            "Accuracy",
            f"{100 * result['accuracy']:.2f} % of {result['samples']:,} samples "
            f"({result['dataset']}, {part})",
        )
    )
    print(labelled("Privacy", result["privacy"]["sentence"]))


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        Path | None,
        Parameter(help="TOML file: a table per command, the same names as the options."),
    ] = None,
) -> Any:
    if config is not None:
        app.config = (cyclopts.config.Toml(config, must_exist=True),)
    return app(tokens, exit_on_error=False, print_error=False)


def main() -> None:
    """Entry point. Exit code 2 for a user's mistake or a refusal, 1 for what may pass or was
    declined, 130 after ctrl-C; each with one line."""
    # Left over from an earlier call in the same process.
    app.config = ()
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except (TeacherUnavailable, Declined) as error:
        _fail(error, 1)
    except (cyclopts.CycloptsError, UserError, PrivacyError, OSError) as error:
        _fail(error, 2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _fail(error: Exception, code: int) -> None:
    print(f"error: {' '.join(plainly(error).split())}", file=sys.stderr)
    sys.exit(code)


def _print_json(content: dict[str, Any]) -> None:
    print(jsonlib.dumps(content, indent=2, ensure_ascii=False))
