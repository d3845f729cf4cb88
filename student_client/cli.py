"""`student-client`: the trainer's command, on any host."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import cyclopts
from cyclopts import App

from ktan.command_line import command_line as lazy
from ktan.errors import ProcessLost, UserError
from privacy.errors import PrivacyError, may_pass, plainly

COMMANDS = {
    "describe": (
        "student_client.commands_teacher:describe",
        "Show a teacher service: its taps with their noise and price, the methods that they "
        "serve, promise and budget. Free.",
    ),
    "budget": (
        "student_client.commands_teacher:budget",
        "Show what was spent of a service's privacy budget and what is left. Free.",
    ),
    "train": (
        "student_client.commands_train:train",
        "Train a student on the answers of a teacher; says what they cost and asks before it "
        "spends.",
    ),
    "evaluate": (
        "student_client.commands_evaluate:evaluate",
        "Measure a student's accuracy on a public part of any data set.",
    ),
    "compare": (
        "student_client.commands_compare:compare_methods",
        "Train a table of students: each method under each teacher, with several seeds, beside "
        "the student alone.",
    ),
    "methods": (
        "student_client.commands_methods:list_methods",
        "List all distillation methods: the paper, what each needs of a teacher, its options.",
    ),
    "answers": (
        "student_client.commands_answers:answers_app",
        "Check answer stores, and put several together.",
    ),
    "export": (
        "student_client.commands_export:export",
        "Write the student of a finished run, with a card that carries the promise it learnt "
        "under.",
    ),
    "benchmark": (
        "student_client.commands_benchmark:benchmark_student",
        "Measure a student's size and speed, and how many times smaller and faster than a "
        "teacher it is.",
    ),
}
"""Name → where it is, which is imported when it is asked for, and its line in the list."""


def command_line(tokens: Sequence[str]) -> App:
    """The command, for a call with these words."""
    return lazy(
        "student-client",
        "Train a small student on the answers of a private teacher.",
        COMMANDS,
        tokens,
    )


def main() -> None:
    """Entry point. Exit code 2 for a user's mistake or a refusal, 1 for what may pass or was
    declined, 130 after ctrl-C; each with one line."""
    tokens = sys.argv[1:]
    try:
        command_line(tokens).meta(tokens, exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        print(f"error: {' '.join(plainly(error).split())}", file=sys.stderr)
        sys.exit(code)


def _exit_code(error: Exception) -> int | None:
    """1 or 2 for what is said in one line; None for what no user can mend."""
    # Not before there is an error: these come with gRPC.
    from student_client.errors import TeacherUnavailable
    from student_client.screen import Declined

    if isinstance(error, (TeacherUnavailable, Declined, ProcessLost)) or may_pass(error):
        return 1
    known = (cyclopts.CycloptsError, UserError, PrivacyError, OSError)
    return 2 if isinstance(error, known) else None
