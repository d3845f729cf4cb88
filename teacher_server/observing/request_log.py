"""The request log: one JSON line a call, appended to a file by a thread of its own.

The ledger is the truth of what was charged; this says who called, also where nothing was charged.
So it never holds the service up. Where the file takes no lines (a full disk, say), they wait in
memory and are written once it does; beyond `_MOST_WAITING` they are lost and counted, and a line
`{"time": …, "lost": N}` says so as soon as there is one again.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ktan.errors import UserError
from teacher_server.observer import Call, Observer

log = logging.getLogger(__name__)

_MOST_WAITING: Final = 100_000
"""Calls that wait for the file, at most; some 50 MB."""
_GATHERING_SECONDS: Final = 0.1
"""How long calls are gathered before they are written together."""
_RETRY_SECONDS: Final = 1.0
_LINES_AT_ONCE: Final = 1000
_HEALTH: Final = "/grpc.health.v1.Health/"
_ENDED_WELL: Final = ("OK", "CANCELLED")
"""A watch is ended by who watches."""


class RequestLog(Observer):
    """Appends to `path`, mode 0600, from its making to `close`. Raises UserError where it cannot.

    Health checks that nothing is wrong with are not written: they would be most of the lines.
    clock: seconds since 1970, of the end of a call.
    """

    def __init__(
        self,
        path: Path,
        *,
        most_waiting: int = _MOST_WAITING,
        clock: Callable[[], float] = time.time,
    ):
        self._path = path
        self._most = most_waiting
        self._clock = clock
        try:
            self._file = _open(path)
        except OSError as error:
            raise UserError(f"--request-log {path}: {error.strerror}") from error
        self._waiting: deque[tuple[float, Call]] = deque()
        # Each is counted by one thread alone: the event loop, and the one that writes.
        self._refused = 0
        self._broken = 0
        self._told = 0
        self._unwritten = b""
        self._torn = False
        self._fails = False
        self._reopen = self._closing = self._idle = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._write, name="request-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that were not written since the service began."""
        return self._refused + self._broken

    def called(self, call: Call) -> None:
        if call.code in _ENDED_WELL and call.method.startswith(_HEALTH):
            return
        if len(self._waiting) >= self._most:
            self._refused += 1
            return
        self._waiting.append((self._clock(), call))
        if self._idle:
            self._idle = False
            self._wake.set()

    def reopen(self) -> None:
        """The file was moved away: the next line goes to a new one. For signal handlers, too."""
        self._reopen = True
        self._wake.set()

    def close(self) -> None:
        """Writes what waits, where the file takes it, and closes."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _write(self) -> None:
        while True:
            # In this order: a call that comes in between finds `_idle`, and wakes.
            self._idle = True
            if not (self._waiting or self._unwritten or self._reopen or self.lost > self._told):
                if self._closing:
                    break
                self._wake.wait()
            self._idle = False
            self._wake.clear()
            if not self._closing:
                # Not by `_wake`: one write for many calls.
                time.sleep(_GATHERING_SECONDS)
            if self._reopen:
                self._exchange()
            # As it was before the attempt: who closes has one made after that.
            closing = self._closing
            if not self._drain():
                if closing:
                    break
                if not self._closing:
                    time.sleep(_RETRY_SECONDS)
        self._finish()

    def _drain(self) -> bool:
        """Writes all that waits; False where the file takes no more."""
        while True:
            if not self._unwritten:
                self._unwritten = self._next_lines()
                if not self._unwritten:
                    return True
            try:
                while self._unwritten:
                    # A disk that fills up takes a part: the rest follows where it ended.
                    taken = os.write(self._file, self._unwritten)
                    self._torn = self._unwritten[taken - 1 : taken] != b"\n"
                    self._unwritten = self._unwritten[taken:]
            except OSError as error:
                if not self._fails:
                    self._fails = True
                    log.error("the request log takes no lines: %s", os.strerror(error.errno or 0))
                return False
            if self._fails:
                self._fails = False
                log.warning("the request log takes lines again; %d are lost", self.lost)

    def _next_lines(self) -> bytes:
        lines: list[bytes] = []
        while self._waiting and len(lines) < _LINES_AT_ONCE:
            lines.append(_line(*self._waiting.popleft()))
        lost = self.lost
        if lost > self._told:
            lines.append(_json({"time": _time(self._clock()), "lost": lost - self._told}))
            self._told = lost
        return b"".join(lines)

    def _exchange(self) -> None:
        self._reopen = False
        try:
            fresh = _open(self._path)
        except OSError as error:
            log.error("the request log is not reopened: %s", os.strerror(error.errno or 0))
            return
        os.close(self._file)
        self._file = fresh
        if self._torn:
            # A line that was begun in the old file is not ended in the new one.
            self._unwritten = self._unwritten.partition(b"\n")[2]
            self._torn = False
            self._broken += 1

    def _finish(self) -> None:
        missing = len(self._waiting) + self._unwritten.count(b"\n")
        if missing:
            self._broken += missing
            log.error("the request log ends with %d lines unwritten", missing)
        try:
            os.fsync(self._file)
        except OSError as error:
            log.error("the request log may be incomplete: %s", os.strerror(error.errno or 0))
        os.close(self._file)


def _open(path: Path) -> int:
    # Without waiting for the other end of a pipe.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    file = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(0, "it is no ordinary file")
        # Also where it was there before, with other rights.
        os.fchmod(file, 0o600)
    except OSError:
        os.close(file)
        raise
    return file


def _line(ended: float, call: Call) -> bytes:
    return _json(
        {
            "time": _time(ended),
            "client": call.client,
            "roles": call.roles,
            "method": call.method,
            "request_id": call.request_id,
            "samples": call.samples,
            "charged_samples": call.charged_samples,
            "charge": call.charge,
            "entry": call.entry,
            "status": call.code,
            "reason": call.reason,
            "seconds": round(call.seconds, 6),
        }
    )


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def _json(fields: dict[str, object]) -> bytes:
    return _ENCODER.encode(fields).encode() + b"\n"
