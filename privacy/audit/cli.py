"""`privacy-audit`: the auditor's command. Needs no access to teachers, models or private data."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import cyclopts
from cyclopts import App

from ktan.command_line import command_line as lazy
from privacy.errors import PrivacyError, plainly

COMMANDS = {
    "plan": (
        "privacy.audit.commands.plan:plan",
        "Say what a privacy budget buys, before a single query is asked.",
    ),
    "ledger": (
        "privacy.audit.commands.ledger:ledger",
        "Verify a ledger: its chain, its signatures, its sums, and what others hold of it.",
    ),
    "mechanism": (
        "privacy.audit.commands.mechanism:mechanism",
        "Measure what a running service leaks, between worst-case adjacent worlds, on the real "
        "path.",
    ),
    "membership": (
        "privacy.audit.commands.membership:membership",
        "Hold a membership inference attack beside the cap that a privacy claim puts on every "
        "attack.",
    ),
    "canaries": (
        "privacy.audit.commands.canaries:canaries",
        "Bound ε from below by one training run whose canaries were put in by fair coins.",
    ),
    "receipts": (
        "privacy.audit.commands.receipts:receipts",
        "Check a client's receipts against a log, and name the first that does not fit.",
    ),
}
"""Name → where it is, which is imported when it is asked for, and its line in the list."""


def command_line(tokens: Sequence[str]) -> App:
    """The command, for a call with these words."""
    return lazy(
        "privacy-audit",
        "Check what a private teacher's ledger claims, and plan what a budget buys.",
        COMMANDS,
        tokens,
    )


def main() -> None:
    """Entry point: exit code 2 and one line for a user's mistake, 130 after ctrl-C."""
    tokens = sys.argv[1:]
    try:
        command_line(tokens).meta(tokens, exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, PrivacyError, OSError, ValueError) as error:
        print(f"error: {plainly(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        # A command that leaves nothing behind says so.
        print("; ".join(["stopped", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
