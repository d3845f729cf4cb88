"""What happens in a service, told as it happens to whoever keeps count: metrics, logs, traces.

Everything said here is public by DESIGN's rules: who called, when, how many samples, at what
charge, how long it took. Never a sample, an answer, or anything that a teacher computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One finished call of any method.

    code: name of its gRPC status. reason: machine-readable, empty for OK. seconds: from its first
    byte to its last. samples, charged_samples and charge (units of μ²·2⁴⁰) are 0 but for queries
    that were answered; request_id and entry (of the ledger) likewise.
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


class Observer:
    """Told of events from the event loop and from worker threads; does nothing by itself.

    An implementation returns fast, never blocks and never raises.
    """

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
