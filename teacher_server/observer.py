"""What happens in a service, told as it happens to whoever keeps count: metrics, logs, traces.

Everything said here is public by DESIGN's rules: who called, when, how many samples, at what
charge, how long it took. Never a sample, an answer, or anything that a teacher computed.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Stage(NamedTuple):
    """A part of a call's time that is named: from `began` to `ended`, by `time.monotonic`."""

    name: str
    began: float
    ended: float


@dataclass(slots=True)
class Notes:
    """What the handler of a call says of it while it runs; the guard makes a `Call` of it.

    Every field is that of `Call`; `reason` is the guard's. Written from the event loop, or from
    one worker at a time that the event loop awaits.
    """

    reason: str = ""
    request_id: str = ""
    samples: int = 0
    charged_samples: int = 0
    charge: int = 0
    entry: int = 0
    stages: list[Stage] = field(default_factory=list)

    def stage(self, name: str, began: float, ended: float) -> None:
        """A part of the call's time: `queue`, `batch` or `settle`."""
        self.stages.append(Stage(name, began, ended))


_notes: contextvars.ContextVar[Notes] = contextvars.ContextVar("notes")


def notes() -> Notes:
    """Of the call that is being served; of none where no guard stands before the handler."""
    current = _notes.get(None)
    return start_notes() if current is None else current


def start_notes() -> Notes:
    """Fresh ones, for a call that begins in this context."""
    fresh = Notes()
    _notes.set(fresh)
    return fresh


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call of any method.

    client, roles: empty where the caller is unknown. code: name of its gRPC status; CANCELLED for
    a caller that went away. reason: machine-readable, empty for OK. seconds: from its request to
    its last answer; began: when, by `time.monotonic`. samples, charged_samples and charge (units
    of μ²·2⁴⁰) are 0 but for queries that were answered; entry (of the ledger) likewise.
    request_id: empty but for queries. stages: of a query, where its time went. streamed: of a
    method whose answers are a stream, which may have no natural end.
    """

    method: str
    client: str
    roles: tuple[str, ...]
    code: str
    reason: str
    seconds: float
    request_id: str = ""
    samples: int = 0
    charged_samples: int = 0
    charge: int = 0
    entry: int = 0
    began: float = 0.0
    stages: tuple[Stage, ...] = ()
    streamed: bool = False


class Observer:
    """Told of events from the event loop and from worker threads; does nothing by itself.

    An implementation returns fast, never blocks and never raises.
    """

    @property
    def listens(self) -> bool:
        """Whether what it is told goes anywhere; it is the same for good.

        Where nobody listens, `called` and `waiting` need not be called.
        """
        return type(self) is not Observer

    def called(self, call: Call) -> None:
        """A call has ended."""

    def computed(self, requests: int, samples: int, seconds: float) -> None:
        """The teacher has answered a batch."""

    def settled(self, requests: int, seconds: float) -> None:
        """Requests have become durable in one go."""

    def waiting(self, requests: int, samples: int) -> None:
        """How much waits for the teacher now."""


class Observers(Observer):
    """Tells several."""

    def __init__(self, observers: Iterable[Observer]):
        self._observers = tuple(observers)

    @property
    def listens(self) -> bool:
        return any(observer.listens for observer in self._observers)

    def called(self, call: Call) -> None:
        for observer in self._observers:
            observer.called(call)

    def computed(self, requests: int, samples: int, seconds: float) -> None:
        for observer in self._observers:
            observer.computed(requests, samples, seconds)

    def settled(self, requests: int, seconds: float) -> None:
        for observer in self._observers:
            observer.settled(requests, seconds)

    def waiting(self, requests: int, samples: int) -> None:
        for observer in self._observers:
            observer.waiting(requests, samples)
