"""How the secure host keeps its secrets: what would give them away is refused before serving.

The folder is the gate: whom it keeps out cannot reach a file in it, whatever that file's own mode.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ktan.errors import UserError
from privacy.ledger.database import URL_FILE
from privacy.ledger.keys import SECRET_KEY, SIGNING_KEY

log = logging.getLogger(__name__)

_CIPHERS: Final = "GRPC_SSL_CIPHER_SUITES"
_TRACES: Final = ("GRPC_TRACE", "GRPC_VERBOSITY")
_LEDGER_SECRETS: Final = (SIGNING_KEY, SECRET_KEY, URL_FILE)


def require_safe(teacher: Path, ledger: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError where a teacher or a ledger must not be served from this host as it stands.

    Anybody on the host who may enter either folder, a secret of the ledger that is not this user's
    alone (`require_secret`), TLS ciphers chosen from outside. Warns of what may be meant: members
    of a group who may enter, a service that runs as root, gRPC's own traces. What is missing
    altogether is for others to miss.
    """
    if _CIPHERS in environment:
        raise UserError(
            f"the environment sets {_CIPHERS}, which could weaken TLS: unset it; gRPC's own choice "
            "is TLS 1.2 and 1.3 with forward secrecy and authenticated encryption"
        )
    for name in _TRACES:
        # None of it is what our own commands ask of gRPC, where nobody else has asked for more.
        if environment.get(name, "NONE").upper() != "NONE":
            log.warning("%s is set: what gRPC then writes may hold requests and answers", name)
    if os.geteuid() == 0:
        log.warning(
            "the service runs as root, who needs none of root's rights: run it as a user of its "
            "own, to whom alone the teacher and the ledger belong"
        )
    for folder in (teacher, ledger):
        _require_closed(folder)
    for path in (ledger / name for name in _LEDGER_SECRETS):
        if path.exists():
            require_secret(path)


def _require_closed(folder: Path) -> None:
    try:
        found = folder.stat()
    except OSError:
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o007:
        raise UserError(
            f"{folder} can be entered by anybody on this host (mode {mode:04o}); run: "
            f"chmod -R go-rwx {folder}"
        )
    if mode & 0o070:
        log.warning(
            "members of group %d may enter %s (mode %04o): whoever reads it knows the secrets in "
            "it; run: chmod -R go-rwx %s",
            found.st_gid,
            folder,
            mode,
            folder,
        )


def require_unchangeable(path: Path) -> None:
    """Raises UserError where others may change the file or folder at `path`: it says who may ask.

    The group may where it is root's, who chose the group. In a folder with the sticky bit, as
    Kubernetes mounts secrets, others can add files and neither replace nor remove any.
    """
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode) and mode & stat.S_ISVTX:
        return
    if mode & 0o002 or (mode & 0o020 and found.st_uid != 0):
        raise UserError(
            f"{path} can be changed by others (mode {mode:04o}), and says who may ask; run: "
            f"chmod go-w {path}"
        )


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
