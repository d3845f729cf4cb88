"""How the secure host keeps its files: what would give secrets away is refused before serving."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ktan.errors import UserError


def require_secret(path: Path) -> None:
    """Raises UserError unless nobody but this user reads the key file at `path`.

    PostgreSQL's rule for its keys: a file of ours is ours alone (0600 or less); one of root's may
    be read by our group as well (0640 or less), which is how systemd and Kubernetes hand over
    secrets. A file of anybody else's was chosen, and is known, by somebody else.
    """
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid():
        if mode & 0o077:
            raise UserError(f"{path} can be read or changed by others; run: chmod 600 {path}")
    elif found.st_uid != 0:
        raise UserError(
            f"{path} belongs to user {found.st_uid}, and the service runs as {os.geteuid()}: a "
            "secret belongs to who uses it; change its owner, or run the service as that user"
        )
    elif mode & 0o037:
        raise UserError(f"{path} can be changed, or read by anybody; run: chmod 640 {path}")
