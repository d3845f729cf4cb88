"""A job's script is run with stand-ins for every program, and what they were told is parsed.

So is what a page tells its reader to type.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cyclopts
from torch.distributed.run import get_args_parser

from privacy.audit.cli import command_line as privacy_audit
from student_client.cli import command_line as student_client
from teacher_server.cli import command_line as teacher_server

FILES = Path(__file__).parents[2] / "deploy" / "training"
_OURS: Mapping[str, Callable[[Sequence[str]], cyclopts.App]] = {
    "privacy-audit": privacy_audit,
    "student-client": student_client,
    "teacher-server": teacher_server,
}
_FIELD, _RECORD = "\x1f", "\x1e"


@dataclass(frozen=True)
class Programs:
    """Stand-ins in a folder of their own, which stands first in PATH."""

    folder: Path

    def add(self, name: str, body: str = "") -> None:
        """A program that writes down its words, and then does as `body` (bash) says."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        record = f"printf '%s\\x1f' {name} \"$@\" >> '{self._log}'\nprintf '\\x1e' >> '{self._log}'"
        path.write_text(f"#!/bin/bash\n{record}\n{body}\n", encoding="utf-8")
        path.chmod(0o755)

    def run(self, command: Sequence[str], **environment: str) -> int:
        """The exit code of a script that finds these programs."""
        path = f"{self.folder}:/usr/bin:/bin"
        settings = {"PATH": path, "HOME": "/home/anna", **environment}
        return subprocess.run(command, env=settings, check=False).returncode

    def calls(self, name: str) -> list[list[str]]:
        """What each call of a program was told, without its name."""
        if not self._log.exists():
            return []
        records = self._log.read_text(encoding="utf-8").split(_RECORD)[:-1]
        words = [record.split(_FIELD)[:-1] for record in records]
        return [told for called, *told in words if called == name]

    @property
    def _log(self) -> Path:
        return self.folder / "calls.log"


def typed(page: Path) -> Iterator[list[str]]:
    """Commands in a page's blocks, a list of words each; those of a language are left out."""
    for block in re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)


def command_of(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """torchrun's own options as it parses them, and the command behind them; none without it.

    Raises SystemExit for an option that torchrun does not have.
    """
    if words[0] != "torchrun":
        return {}, list(words)
    parsed = get_args_parser().parse_args(list(words[1:]))
    return vars(parsed), [parsed.training_script, *parsed.training_script_args]


def parsed(words: Sequence[str], config: Path | None = None) -> dict[str, Any]:
    """The arguments of the function that a command of ours would call.

    Raises a CycloptsError for an option that is unknown, or missing, or has no such value.
    """
    name, *tokens = words
    app = _OURS[os.path.basename(name)](tokens)
    if "--config" in tokens:
        at = tokens.index("--config")
        app.config = (cyclopts.config.Toml(config or Path(tokens[at + 1]), must_exist=True),)
        del tokens[at : at + 2]
    _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    return bound.arguments
