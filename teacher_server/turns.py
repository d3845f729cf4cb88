"""Whose turn it is: deficit round robin over clients, counted in samples.

Shreedhar & Varghese 1995: at each of its turns a client's credit grows by the same quantum, and
its requests go, in their order, as far as the credit covers their samples. Over any time in which
two clients both have something waiting, the samples handed out to them differ by at most
`unfairness(quantum, largest request)`, however many requests of whatever size each one has.
Adding, removing and handing out take constant time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, Protocol, TypeVar

QUANTUM: Final = 16
"""Samples a turn. Small, so that one sample never waits for many requests of 64 of others; a
request of 64 then takes four turns, which cost less than a microsecond."""


class Request(Protocol):
    """What waits for its turn; hashed by identity."""

    @property
    def client(self) -> str: ...
    @property
    def samples(self) -> int: ...


Asked = TypeVar("Asked", bound=Request)


def unfairness(quantum: int, largest: int) -> int:
    """Samples by which two clients that always have something waiting may be served apart."""
    return quantum + 2 * largest


class _Line(Generic[Asked]):
    """The requests of one client, and what it may still take in this turn."""

    __slots__ = ("credit", "requests", "samples")

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.requests: OrderedDict[Asked, None] = OrderedDict()
        self.samples = 0


class Turns(Generic[Asked]):
    """Requests that wait, in fair order. Not thread-safe."""

    def __init__(self, quantum: int = QUANTUM):
        self._quantum = quantum
        self._lines: OrderedDict[str, _Line[Asked]] = OrderedDict()
        """Of clients with something waiting; the first one has its turn."""
        self.requests = 0
        """How many wait."""
        self.samples = 0
        """And their samples."""

    def add(self, request: Asked) -> None:
        """Behind the requests of the same client."""
        line = self._lines.get(request.client)
        if line is None:
            line = self._lines[request.client] = _Line(self._quantum)
        line.requests[request] = None
        line.samples += request.samples
        self.requests += 1
        self.samples += request.samples

    def remove(self, request: Asked) -> bool:
        """False where it does not wait here."""
        line = self._lines.get(request.client)
        if line is None or request not in line.requests:
            return False
        del line.requests[request]
        line.samples -= request.samples
        self.requests -= 1
        self.samples -= request.samples
        if not line.requests:
            # A client without requests saves up no credit for later.
            del self._lines[request.client]
        return True

    def head(self) -> Asked:
        """The request that is next; something must wait."""
        while True:
            client, line = next(iter(self._lines.items()))
            request = next(iter(line.requests))
            if len(self._lines) == 1:
                line.credit = max(line.credit, request.samples)
            if request.samples <= line.credit:
                return request
            line.credit += self._quantum
            self._lines.move_to_end(client)

    def pop(self) -> Asked:
        """Hands out the `head`: its client's credit pays for it."""
        request = self.head()
        self._lines[request.client].credit -= request.samples
        self.remove(request)
        return request

    def ahead(self, client: str, samples: int) -> int:
        """Samples to be handed out until a further request of `client` has been, itself included.

        As far as is known now: who comes later may get a turn before it.
        """
        line = self._lines.get(client)
        own = samples + (0 if line is None else line.samples)
        others = self.samples + samples - own
        lines = len(self._lines) - (line is not None)
        return own + min(others, lines * (own + self._quantum))
