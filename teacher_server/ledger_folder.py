"""What the service keeps in a ledger's folder beside the ledger's own files; free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

WITNESS_PATH: Final = "witness-path"
"""Where the ledger's witness is."""
SPLIT_FILE: Final = "split.json"
"""Which units are private, for ever; a ledger without it is of no data."""


def naming(witness: Path) -> dict[str, bytes]:
    """The file, name → content, by which `witness_of` finds the witness again."""
    return {WITNESS_PATH: f"{witness}\n".encode()}


def witness_of(folder: Path) -> Path:
    """The witness file that the ledger in `folder` was opened with. Raises FileNotFoundError."""
    return Path((folder / WITNESS_PATH).read_text(encoding="utf-8").strip())
