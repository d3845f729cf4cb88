"""The command that rehearses the service; `teacher-server rehearse` and `-m` run the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from ktan.errors import UserError
from privacy.errors import PrivacyError, plainly
from privacy.noise import source
from teacher_server.commands.options import Flag, Serving
from teacher_server.commands.screen import print_facts
from teacher_server.observing.json_logs import set_up_logs
from teacher_server.options import ServeOptions
from teacher_server.rehearsal.likeness import public_teacher, rehearsed_menu
from teacher_server.rehearsal.options import RehearsalOptions
from teacher_server.rehearsal.teacher import SyntheticTeacher
from teacher_server.rehearsal.throw_away import open_throw_away
from teacher_server.running import run

Rehearsed = Annotated[RehearsalOptions, Parameter(name="*", negative="", group="Rehearsal")]
_REHEARSED = RehearsalOptions()
_SERVING = ServeOptions()


def rehearse(
    *,
    ledger: Path,
    rehearsed: Rehearsed = _REHEARSED,
    options: Serving = _SERVING,
    database_url: str | None = None,
    json: Flag = False,
) -> None:
    """Run the real service with synthetic teachers and a throw-away ledger; no private data.

    For audits, for load and for breaking things: wire, release, noise, ledger and receipts are
    those of `serve`. A ledger that was opened for data is refused.

    Parameters
    ----------
    ledger
        Folder of the throw-away ledger: made when it is not there, reopened when it is.
    database_url
        PostgreSQL for a new ledger's tables: postgresql://USER@HOST:PORT/DATABASE
    json
        Print one JSON object once the service listens.
    """
    set_up_logs(options.log_format)
    options.check()
    rehearsed.check()
    teacher = public_teacher(rehearsed)
    menu = rehearsed_menu(rehearsed, teacher, options)

    def ready(facts: dict[str, Any]) -> None:
        print_facts({"rehearsal": f"world {rehearsed.world}, no private data", **facts}, json)

    with open_throw_away(ledger, rehearsed.ledger_plan, database_url) as opened:
        run(
            SyntheticTeacher(teacher, rehearsed.world),
            teacher,
            menu,
            opened,
            source(rehearsed.noise),
            options,
            os.cpu_count() or 1,
            ready,
        )


def main() -> None:
    """Entry point of the module: exit code 2 and one line for a user's mistake."""
    app = App(name="rehearse", help=rehearse.__doc__, default_command=rehearse)
    try:
        app(exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, UserError, PrivacyError, OSError) as error:
        print(f"error: {plainly(error)}", file=sys.stderr)
        sys.exit(2)
