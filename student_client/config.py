"""The resolved options of a run, as the TOML file that repeats it (`--config OUT/config.toml`)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ktan.durable import write_durably
from ktan.errors import UserError

CONFIG: Final = "config.toml"
_FREE: Final = frozenset(
    {
        "certs",
        "plaintext",
        "deadline",
        "patience",
        "device",
        "data-on",
        "shard",
        "checkpoint-every",
        "query-batch",
        "in-flight",
        "data-root",
        "download",
    }
)
"""Options of where and how, not of what: a resumed run may have others."""

Settings = Mapping[str, Any]
"""Option name as on the command line → str, int, float, bool or a list of strings; None is left
out."""


def write_config(folder: Path, settings: Settings, command: str = "train") -> None:
    """Writes the options of a command; raises TypeError for a value that TOML has no form for."""
    given = {name: value for name, value in settings.items() if value is not None}
    lines = [f"# The options of this run; `student-client {command} --config` takes them."]
    lines += [f"[{command}]"]
    lines += [f"{name} = {_toml(value)}" for name, value in given.items()]
    write_durably(folder / CONFIG, ("\n".join(lines) + "\n").encode())


def check_config(
    folder: Path,
    settings: Settings,
    defaults: Settings,
    command: str = "train",
    free: frozenset[str] = frozenset(),
) -> None:
    """Raises UserError when the run in `folder` was begun with other options.

    `defaults`: option name → what it is where nobody gives it. An option that is not recorded
    counts as that: it was not given, or the version that began the run did not have it yet.
    `free`: further options that may be others now. Raises it for another command's folder, too.
    """
    path = folder / CONFIG
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    if command not in tables:
        raise UserError(f"{folder} is not of `student-client {command}`; name another folder")
    recorded = tables[command]
    for name in sorted(recorded.keys() | settings.keys()):
        before = recorded.get(name, _plain(defaults.get(name)))
        now = _plain(settings.get(name))
        if name not in _FREE | free and before != now:
            raise UserError(
                f"{folder} was begun with --{name} {_shown(before)}, now it is {_shown(now)}; "
                f"resume with `student-client {command} --config {path} --resume`, "
                "or name another folder"
            )


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


def _plain(value: Any) -> Any:
    """As TOML gives it back."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        # A JSON string is a TOML basic string, as long as nothing is written as a surrogate pair.
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    raise TypeError(f"no TOML form of {type(value).__name__}")
