"""`privacy-audit`: the auditor's command. Needs no access to teachers, models or private data."""

import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from privacy.audit.commands.canaries import canaries
from privacy.audit.commands.ledger import ledger
from privacy.audit.commands.mechanism import mechanism
from privacy.audit.commands.membership import membership
from privacy.audit.commands.plan import plan
from privacy.audit.commands.receipts import receipts
from privacy.errors import PrivacyError, plainly

app = App(
    name="privacy-audit",
    help="Check what a private teacher's ledger claims, and plan what a budget buys.",
    # `main` says that it stopped; cyclopts would leave without a word.
    suppress_keyboard_interrupt=False,
)
app.meta.suppress_keyboard_interrupt = False
app.command(plan)
app.command(ledger)
app.command(mechanism)
app.command(membership)
app.command(canaries)
app.command(receipts)


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
    """Entry point: exit code 2 and one line for a user's mistake, 130 after ctrl-C."""
    # Left over from an earlier call in the same process.
    app.config = ()
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, PrivacyError, OSError, ValueError) as error:
        print(f"error: {plainly(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        # A command that leaves nothing behind says so.
        print("; ".join(["stopped", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
