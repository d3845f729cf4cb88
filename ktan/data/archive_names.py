"""Which archives `webdataset:` names: a folder, a pattern, or numbered files in braces."""

import glob
import itertools
import re
from pathlib import Path

from ktan.errors import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_BRACES = re.compile(r"\{([^{}]*)\}")
_SPECIAL = re.compile(r"[*?\[{]")


def archive_paths(named: str) -> list[Path]:
    """The archives, in order.

    `named`: a folder of tar files, or paths with `*`, `?` and `[...]`, `{000..099}` or `{a,b}`.
    Raises UserError when there is none, or when one that braces name is missing.
    """
    if Path(named).is_dir():
        found = [path for path in Path(named).iterdir() if path.name.endswith(SUFFIXES)]
    else:
        found = [path for name in _expanded(named) for path in _matching(name)]
    if not found:
        raise UserError(
            f"webdataset:{named} names no archive; give a folder of .tar files, a pattern such as "
            "'shards/*.tar', or numbers such as 'shards/train-{0000..0099}.tar'"
        )
    return sorted(set(found))


def archive_folder(named: str) -> Path:
    """The folder of the archives, known without looking at it."""
    path = Path(named)
    if path.is_dir():
        return path
    plain = itertools.takewhile(lambda part: not _SPECIAL.search(part), path.parent.parts)
    return Path(*plain)


def _matching(name: str) -> list[Path]:
    if re.search(r"[*?\[]", name):
        return [Path(match) for match in glob.glob(name) if match.endswith(SUFFIXES)]
    if not Path(name).is_file():
        raise UserError(f"there is no archive {name}")
    return [Path(name)]


def _expanded(named: str) -> list[str]:
    """Braces as a shell expands them, the zeros that lead a number included."""
    braces = _BRACES.search(named)
    if braces is None:
        return [named]
    inside = braces[1]
    first, _, last = inside.partition("..")
    if first.isdecimal() and last.isdecimal():
        numbers = range(int(first), int(last) + 1)
        choices = [f"{number:0{len(first)}d}" for number in numbers]
    else:
        choices = inside.split(",")
    before, after = named[: braces.start()], named[braces.end() :]
    return [name for choice in choices for name in _expanded(before + choice + after)]
