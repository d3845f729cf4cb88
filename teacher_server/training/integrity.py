"""A keyed digest over a teacher's files, made and checked on the secure host.

Keyed by the ledger's secret, never a plain digest: training is deterministic, so that a digest of
the weights would itself be a release.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ktan.errors import UserError
from ktan.teachers import FILES

MAC_FILE = "files.mac"

Mac = Callable[[Iterable[bytes]], str]


def seal(contents: Mapping[str, bytes], mac: Mac) -> bytes:
    """What `MAC_FILE` holds for these files (name → content)."""
    return (mac(_framed((name, contents[name]) for name in FILES)) + "\n").encode()


def verify_folder(folder: Path, mac: Mac) -> None:
    """Raises UserError unless the teacher's files are those that were sealed under this ledger."""
    try:
        sealed = (folder / MAC_FILE).read_text(encoding="utf-8").strip()
        found = mac(_framed((name, (folder / name).read_bytes()) for name in FILES))
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no whole teacher: {error.filename} is missing") from error
    if not hmac.compare_digest(sealed, found):
        raise UserError(
            f"the files in {folder} were changed after training, or belong to another ledger; "
            "restore them, or train a new teacher"
        )


def _framed(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Name and length before each content: no two sets of files have one byte string."""
    for name, content in files:
        yield f"{name}\n{len(content)}\n".encode()
        yield content
