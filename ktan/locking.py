"""One process at a time puts the files of a folder together."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone is inside; with `wait` it always is, once others have left.

    The lock goes with the process, however it ends.
    """
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
