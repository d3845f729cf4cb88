"""A command of commands, of which each is imported once it is asked for: a list needs none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter


def command_line(
    name: str, about: str, commands: Mapping[str, tuple[str, str]], tokens: Sequence[str]
) -> App:
    """The command `name`, for a call with these words; `--config FILE` goes before or behind them.

    `commands`: name → where it is (`module:function`), and its line in the list.
    """
    app = App(
        name=name,
        help=about,
        # `main` says that it stopped; cyclopts would leave without a word.
        suppress_keyboard_interrupt=False,
    )
    app.meta.suppress_keyboard_interrupt = False
    for command, (place, line) in commands.items():
        # A command that is asked for has a page of its own, where the line would stand instead.
        app.command(place, name=command, help=None if command in tokens else line)

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[
            Path | None,
            Parameter(help="TOML file: a table per command, the same names as the options."),
        ] = None,
    ) -> Any:
        if config is not None:
            app.config = (cyclopts.config.Toml(config, must_exist=True),)
        return app(tokens, exit_on_error=False, print_error=False)

    return app
