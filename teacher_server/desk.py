"""Admission: bounds what waits for the teacher, and hands it out in fair order.

Counted in samples. What does not fit is refused at once with a retry hint rather than queued for
ever; what waits is handed to the workers in turns over clients, so that one with much to ask does
not starve another; what nobody waits for any more is dropped before any work is done for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from protos import Reason
from teacher_server.errors import Unavailable

RETRY_SECONDS: Final = 0.5


@dataclass(eq=False)
class Ticket:
    """One request that waits to be answered.

    samples: how many. deadline: `time.monotonic` after which its caller has gone. abandoned: set,
    in the event loop, when its caller has gone before.
    """

    client: str
    samples: int
    deadline: float
    abandoned: bool = field(default=False, init=False)


class Desk:
    """Requests between the event loop, which admits them, and the workers, which take them."""

    def __init__(self, max_waiting_samples: int, clock: Callable[[], float] = time.monotonic):
        self._room = max_waiting_samples
        self._clock = clock
        self._waiting: deque[Ticket] = deque()
        self._closed = False
        self.draining = False
        self._changed = threading.Condition()

    def admit(self, ticket: Ticket) -> None:
        """Queues a request. Raises Unavailable when there is no room or while draining."""
        with self._changed:
            if self.draining or self._closed:
                raise Unavailable(Reason.DRAINING, "the server is shutting down", RETRY_SECONDS)
            if ticket.samples > self._room:
                raise Unavailable(
                    Reason.OVERLOADED, "too many samples are waiting; retry later", RETRY_SECONDS
                )
            self._room -= ticket.samples
            self._waiting.append(ticket)
            self._changed.notify()

    def take(self, most: int, wait: float = 0.0) -> list[Ticket]:
        """Requests of up to `most` samples together (one larger request by itself), in turns.

        Blocks until there is one, and then for up to `wait` seconds until there are `most` samples.
        Whose deadline has passed or whose caller has gone is not among them. Empty once closed and
        nothing waits.
        """
        with self._changed:
            while True:
                while not self._waiting:
                    if self._closed:
                        return []
                    self._changed.wait()
                taken: list[Ticket] = []
                room = most
                while self._waiting and (not taken or self._waiting[0].samples <= room):
                    ticket = self._waiting.popleft()
                    if ticket.abandoned or ticket.deadline <= self._clock():
                        self._room += ticket.samples
                        continue
                    taken.append(ticket)
                    room -= ticket.samples
                if taken:
                    return taken

    def leave(self, ticket: Ticket) -> None:
        """A request that was taken is answered, or has failed: its room is free again."""
        with self._changed:
            self._room += ticket.samples

    def close(self) -> None:
        """Nobody is admitted any more; `take` hands out what waits, then nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
