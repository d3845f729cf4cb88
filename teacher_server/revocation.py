"""Certificates that are refused though our authority signed them: a file, followed as it changes.

    # why, and since when, may stand behind a #
    name anna
    serial 6ea8de62d4633ad1b2ef330764230f33296ca23b

A name is refused in every role, whatever certificate it comes by; a serial number (hexadecimal, as
`teacher-server certs` prints it) is of one certificate. The guard asks at each call, and looks at
the file every twentieth of a second at most: a connection which is open already is refused at its
first call after that.

Once it was read, the list is never shortened by accident: while the file is broken or gone the list
as it was stays in force, and the log says so. Refusing everybody instead would protect no record
(the budget binds all callers together) and turn a slip of the pen into an outage.
"""

from __future__ import annotations

import datetime
import fcntl
import functools
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from ktan.durable import write_durably
from ktan.errors import UserError
from protos import Reason
from teacher_server.errors import RequestError, Unauthenticated
from teacher_server.identity import is_name
from teacher_server.posture import require_unchangeable

log = logging.getLogger(__name__)

FILE: Final = "revoked"
"""In the server's certificate folder, where no other file is named."""
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")
_MINUTE: Final = 60.0
_LOOK_SECONDS: Final = 0.05
"""Between two looks at the file: in a busy service each costs a call more than it is worth."""
_HEADING: Final = "# Refused within a twentieth of a second: `name NAME` or `serial HEX` a line.\n"


@dataclass(frozen=True)
class Revoked:
    """Who is refused: client names, and serial numbers of certificates."""

    names: frozenset[str] = frozenset()
    serials: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str, where: str) -> Revoked:
        """The list in `text`. Raises UserError, which names the line, for anything else."""
        names, serials = set(), set()
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            match words:
                case []:
                    continue
                case ["name", name] if is_name(name):
                    names.add(name)
                case ["serial", serial] if _SERIAL.fullmatch(serial.lower().replace(":", "")):
                    serials.add(int(serial.replace(":", ""), 16))
                case _:
                    raise UserError(
                        f"{where}, line {number}: write `name NAME` or `serial HEX`, # before a "
                        "comment"
                    )
        return cls(frozenset(names), frozenset(serials))


class Revocations:
    """The list in `path`, as it is now. For one thread: the event loop's.

    needed: the file must be there; otherwise none means nobody is revoked, until one appears.
    Raises UserError when it cannot be read.
    """

    def __init__(self, path: Path, *, needed: bool):
        self._path = path
        self._stamp = _stamp(path)
        self._list = _read(path) if needed or self._stamp is not None else Revoked()
        self._next_look = 0.0
        self._again = math.inf
        """`time.monotonic` from which on a broken file is read, and spoken of, once more."""

    def check(self, pem: bytes, name: str) -> None:
        """Raises RequestError where the certificate `pem` of `name` is revoked or has ended.

        A connection may outlive the certificate that it was opened with.
        """
        self._follow()
        serial, ends = _facts(pem)
        if name in self._list.names or serial in self._list.serials:
            raise RequestError(
                Reason.REVOKED,
                f"this certificate of {name} was revoked; ask the service's custodian for another",
            )
        if ends <= time.time():
            raise Unauthenticated(
                f"this certificate of {name} has expired; ask the service's custodian for another"
            )

    def _follow(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._stamp and now < self._again:
            return
        self._stamp = stamp
        try:
            self._list = _read(self._path)
        except UserError as error:
            self._again = time.monotonic() + _MINUTE
            log.error("%s; who was revoked before stays so, nobody else is", error)
            return
        self._again = math.inf
        log.info(
            "%s revokes %d names and %d certificates",
            self._path,
            len(self._list.names),
            len(self._list.serials),
        )


def add(path: Path, names: Iterable[str], serials: Iterable[str]) -> Revoked:
    """Adds to the list in `path`, which is made where none is; the list as it is then.

    The file is replaced whole; of several at once each waits for the one before. Raises UserError
    for what is neither, or where it is broken.
    """
    names, serials = tuple(names), tuple(serials)
    # Whoever only checks the list need not be able to write there.
    with _alone(path) if names or serials else nullcontext():
        return _added(path, names, serials)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # Not the list itself, in whose place another is put.
    beside = path.with_name(f".{path.name}.lock")
    try:
        file = beside.open("a")
    except OSError as error:
        raise UserError(f"{path}: cannot be written beside ({error.strerror})") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _added(path: Path, names: Iterable[str], serials: Iterable[str]) -> Revoked:
    before = _text(path) if path.exists() else _HEADING
    # What is broken already is mended by its writer, not buried under more.
    known = Revoked.parse(before, str(path))
    more = [f"name {name}" for name in names] + [f"serial {serial.lower()}" for serial in serials]
    wanted = Revoked.parse("\n".join(more), "what is to be revoked")
    if wanted.names <= known.names and wanted.serials <= known.serials:
        return known
    day = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    lines = "".join(f"{line}  # {day}\n" for line in more)
    after = before if before.endswith("\n") or not before else before + "\n"
    write_durably(path, (after + lines).encode(), mode=0o644)
    return Revoked(known.names | wanted.names, known.serials | wanted.serials)


def _read(path: Path) -> Revoked:
    text = _text(path)
    require_unchangeable(path)
    return Revoked.parse(text, str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no text"
        raise UserError(f"{path}: the list of the revoked cannot be read: {why}") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size


@functools.lru_cache(maxsize=4096)
def _facts(pem: bytes) -> tuple[int, float]:
    """Serial number and end (seconds since 1970) of a certificate that the handshake believed."""
    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.serial_number, certificate.not_valid_after_utc.timestamp()
