"""What a process has in use of its heap, told from within: resident memory alone does not say
whether it is in use or was freed and kept.

A C library keeps freed memory to use it again, the more the more its blocks are scattered. What is
in use at the end as it was in the beginning is no leak.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from pathlib import Path
from typing import Final

_SECONDS: Final = 5.0
_LOOKS: Final = 50


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`: the sums over all arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


def in_use() -> tuple[int, int] | None:
    """Bytes that malloc has handed out and not got back, and Python's blocks; None where the C
    library does not tell."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return None
    ask.restype = _MallInfo
    found = ask()
    return found.uordblks + found.hblkhd, sys.getallocatedblocks()


def tell(path: Path) -> None:
    """Writes to a file every few seconds, for as long as the process lives, the least that was in
    use since: a forward pass needs memory that the next look may find free again."""

    def write() -> None:
        while (found := in_use()) is not None:
            for _ in range(_LOOKS):
                time.sleep(_SECONDS / _LOOKS)
                found = min(found, in_use() or found)
            fresh = path.with_suffix(".new")
            fresh.write_text("{} {}".format(*found), encoding="ascii")
            fresh.replace(path)

    threading.Thread(target=write, name="heap", daemon=True).start()


def told(path: Path) -> tuple[int, int]:
    """What was written last; zeros where nothing was."""
    if not path.exists():
        return 0, 0
    malloc, blocks = path.read_text(encoding="ascii").split()
    return int(malloc), int(blocks)
