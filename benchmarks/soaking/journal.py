"""What a client asked and what it got, kept on disk before it goes on.

A file of one JSON array a line, only ever appended to; each line is one write, so that a process
that is killed leaves whole lines. Times are `time.monotonic`, which all processes share.

    ["ask", due, id, first, count]                  new samples that somebody wants
    ["send", time, id]                              before each call
    ["got", time, id, digest, charged, receipt]     its answer
    ["no", time, id, status and reason, seconds, text]  its refusal or fault, the hint to retry, and
                                                    what gRPC said where the service gave no reason
    ["cut", time, id]                               the client cancelled it, or its own connection
    ["end", time, id, why]                          nobody will send it again
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MAYBE: Final = frozenset({"DEADLINE_EXCEEDED", "CANCELLED", "UNAVAILABLE"})
"""Without a reason of the service: whether it charged is unknown to the client."""


@dataclass(frozen=True)
class Got:
    """One answer. digest: SHA-256 of the samples' answers, one after the other, in hexadecimal.

    seconds: of the call that brought it.
    """

    time: float
    seconds: float
    digest: str
    charged: int
    receipt: str


@dataclass
class Asked:
    """A request, and all that became of it. due: when its client wanted it."""

    request_id: str
    first: int
    count: int
    due: float
    sends: int = 0
    cuts: int = 0
    got: list[Got] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    """What gRPC itself said, where the service gave no reason."""
    unhinted: int = 0
    """Refusals of the service as UNAVAILABLE that did not say when to come again."""
    end: str | None = None
    sent: float = 0.0
    """When it was last sent."""

    @property
    def died(self) -> int:
        """Calls of which nothing was ever heard: the client's process was killed."""
        return self.sends - self.cuts - len(self.got) - self.refused.total()

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been settled without an answer that its client saw."""
        return bool(self.cuts or self.died or MAYBE & self.refused.keys())


class Journal:
    """The file of one client, to which its one living process appends."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def ask(self, due: float, request_id: str, first: int, count: int) -> None:
        self._write("ask", due, request_id, first, count)

    def send(self, request_id: str) -> None:
        self._write("send", time.monotonic(), request_id)

    def got(self, request_id: str, digest: str, charged: int, receipt: bytes) -> None:
        self._write("got", time.monotonic(), request_id, digest, charged, receipt.decode())

    def no(self, request_id: str, status: str, hint: float | None, text: str = "") -> None:
        self._write("no", time.monotonic(), request_id, status, hint, text)

    def cut(self, request_id: str) -> None:
        self._write("cut", time.monotonic(), request_id)

    def end(self, request_id: str, why: str) -> None:
        self._write("end", time.monotonic(), request_id, why)

    def _write(self, *event: Any) -> None:
        line = json.dumps(event).encode() + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError("no room for the journal of a client")


def read(path: Path) -> dict[str, Asked]:
    """Request id → what became of it. Empty where there is no file."""
    asked: dict[str, Asked] = {}
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                note(asked, json.loads(line))
    return asked


def unfinished(path: Path) -> tuple[list[tuple[str, int, int]], int]:
    """What was neither answered nor given up, as (id, first, count), and the next sample's number.

    Looks at no more of a line than that takes: who comes back after many requests asks at once.
    """
    wanted: dict[str, tuple[int, int]] = {}
    following = 0
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                _, kind, _, request_id, _ = line.split('"', 4)
                if kind == "ask":
                    first, count = json.loads(line)[3:]
                    wanted[request_id] = first, count
                    following = max(following, first + count)
                elif kind in ("got", "end"):
                    wanted.pop(request_id, None)
    return [(request_id, *samples) for request_id, samples in wanted.items()], following


def note(asked: dict[str, Asked], event: Sequence[Any]) -> None:
    """Adds one event to what is known."""
    kind, moment, request_id = event[:3]
    if kind == "ask":
        asked[request_id] = Asked(request_id, event[3], event[4], moment)
        return
    request = asked[request_id]
    match kind:
        case "send":
            request.sends += 1
            request.sent = moment
        case "got":
            request.got.append(Got(moment, moment - request.sent, *event[3:]))
        case "no":
            status, hint, text = event[3:]
            request.refused[status] += 1
            if text:
                request.texts[f"{status}: {text}"] += 1
            request.unhinted += hint is None and status.startswith("UNAVAILABLE ")
        case "cut":
            request.cuts += 1
        case "end":
            request.end = event[3]
