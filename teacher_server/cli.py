"""`teacher-server`: the custodian's command, on the secure host."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import cyclopts
from cyclopts import App

from ktan.command_line import command_line as lazy
from ktan.errors import UserError
from privacy.errors import PrivacyError, may_pass, plainly
from teacher_server.observing.json_logs import TextLines

COMMANDS = {
    "certs": (
        "teacher_server.commands.certs:certs",
        "Make a private certificate authority, or let the one there issue and renew certificates.",
    ),
    "revoke": (
        "teacher_server.commands.revoke:revoke",
        "Refuse a caller, or one certificate; while serving, within a twentieth of a second.",
    ),
    "open-ledger": (
        "teacher_server.commands.open_ledger:open_ledger",
        "Open the one ledger of a private data set, with the budget it will enforce for ever.",
    ),
    "train": (
        "teacher_server.commands.teacher:train",
        "Train a teacher on the private part of a data set, under that data set's ledger.",
    ),
    "evaluate": (
        "teacher_server.commands.teacher:evaluate",
        "Accuracy of a teacher on public test samples: an unprotected figure, for this host only.",
    ),
    "serve": (
        "teacher_server.commands.serve:serve",
        "Answer public samples over gRPC until told to stop; SIGTERM drains.",
    ),
    "status": (
        "teacher_server.commands.status:status",
        "Say how a service stands, on one screen: exit code 0 if it is ready, 1 if not.",
    ),
    "health": (
        "teacher_server.commands.health:health",
        "Ask a running service whether it can answer: exit code 0 if so, 1 if not.",
    ),
    "cap": (
        "teacher_server.commands.ledger:cap",
        "Cap what one client may spend, beneath the budget of all; the ledger records it.",
    ),
    "export-log": (
        "teacher_server.commands.ledger:export_log",
        "Write the public log to a file, for auditors: charges and digests, no sample, no answer.",
    ),
    "backup": (
        "teacher_server.commands.ledger:backup",
        "Copy a whole ledger, answers and keys included, to a new folder; its service may be "
        "running.",
    ),
    "migrate-ledger": (
        "teacher_server.commands.ledger:migrate_ledger",
        "Bring a ledger that an older program made up to date, after a copy of its tables.",
    ),
    "rotate-key": (
        "teacher_server.commands.ledger:rotate_key",
        "Hand a ledger over to a new signing key, endorsed by the old one, which is destroyed.",
    ),
    "rehearse": (
        "teacher_server.rehearsal.command:rehearse",
        "Run the real service with synthetic teachers and a throw-away ledger; no private data.",
    ),
}
"""Name → where it is, which is imported when it is asked for, and its line in the list."""


def command_line(tokens: Sequence[str]) -> App:
    """The command, for a call with these words."""
    return lazy(
        "teacher-server",
        "Train private teachers and serve their noisy answers under a privacy ledger.",
        COMMANDS,
        tokens,
    )


def main() -> None:
    """Entry point. Exit code 2 and one line for a user's mistake, 1 for storage that is full or
    away for a time or a database that is, 130 after ctrl-C."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("teacher_server").setLevel(logging.INFO)
    tokens = sys.argv[1:]
    try:
        command_line(tokens).meta(tokens, exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, UserError, PrivacyError, OSError) as error:
        print(f"error: {plainly(error)}", file=sys.stderr)
        sys.exit(1 if may_pass(error) else 2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
