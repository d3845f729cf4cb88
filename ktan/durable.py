"""Files that are either wholly there after a power cut, or not at all."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replaces `path` by `content` atomically; returns once both file and name are on disk.

    mode: its permissions, such as 0o600, from the first byte on; the usual ones when None.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put_durably(temporary: Path, path: Path) -> None:
    """Renames a file that was written to `path`; returns once both file and name are on disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Puts the folder's names on disk: without it a rename or an unlink may be lost."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
