"""Admission: bounds what waits for the teacher, and hands it out in fair order.

Counted in samples. What does not fit, or cannot be answered before its caller gives up, is refused
at once with a retry hint rather than queued for ever; what waits is handed to the workers in turns
over clients (turns.py), so that one with much to ask does not starve another; what nobody waits
for any more is dropped before any work is done for it. What was answered counts until its call has
ended: an answer that its caller does not read is held in memory.

One client holds at most a share, three quarters unless told otherwise, of the room that the others
leave: one alone may fill so much of it, two greedy ones 3/7 each, n of them 3/(3n + 1), and the
last 1/(3n + 1) is always left for a newcomer. Whoever holds nothing may bring any request that
fits.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from protos import Reason
from teacher_server.errors import Unavailable
from teacher_server.service_rate import ServiceRate
from teacher_server.turns import Turns

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 0.5
"""Suggested where everything is full and the workers' rate is not known."""
_SHORTEST, _LONGEST = 0.1, 10.0

Gate = Callable[[str, int, int], None]
"""(client, samples, samples that it holds already): raises Unavailable to refuse."""


@dataclass(eq=False)
class Ticket:
    """One request that waits to be answered.

    samples: how many. deadline: `time.monotonic` after which its caller has gone. on_dropped:
    called once, from a worker's thread, when it is dropped without having been handed out: it must
    not block. finished, left: `Desk.finish` and `Desk.leave` set them.
    """

    client: str
    samples: int
    deadline: float
    on_dropped: Callable[[], None] | None = field(default=None, kw_only=True)
    finished: bool = field(default=False, init=False)
    left: bool = field(default=False, init=False)


class Desk:
    """Requests between the event loop, which admits them, and the workers, which take them."""

    def __init__(
        self,
        max_waiting_samples: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        share: float = 0.75,
        gate: Gate | None = None,
        chance: Callable[[], float] = random.random,
    ):
        """share: of the room that others leave, for one client. gate: asked last of all, for
        what this desk would take. chance: 0 to 1, spreads the retries."""
        self._room = max_waiting_samples
        self._clock = clock
        self._share = share
        self._gate = gate
        self._chance = chance
        self._turns: Turns[Ticket] = Turns()
        self._rate = ServiceRate()
        self._inside = 0
        """Samples of all that was admitted and whose room is not free again."""
        self._unfinished = 0
        """Those of them that wait or are worked on."""
        self._held: dict[str, int] = {}
        """The same by client."""
        self._closed = False
        self.draining = False
        self._gathering = False
        """Whether a worker waits for a batch to fill, and"""
        self._enough = 0
        """the samples that are enough for it."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._filled = threading.Condition(self._lock)

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests and samples that nobody has taken yet."""
        with self._lock:
            return self._turns.requests, self._turns.samples

    def admit(self, ticket: Ticket) -> None:
        """Queues a request.

        Raises Unavailable while draining, when there is no room or none for this client, when it
        would certainly not be answered before its deadline, and as the gate does.
        """
        with self._lock:
            if self.draining or self._closed:
                raise Unavailable(
                    Reason.DRAINING, "the server is shutting down", self._spread(RETRY_SECONDS)
                )
            client, samples = ticket.client, ticket.samples
            held = self._held.get(client, 0)
            free = self._room - self._inside
            if samples > free:
                raise self._overloaded("too many samples are waiting; retry later")
            if held and held + samples > self._share * (free + held):
                raise self._overloaded("too many samples of this client are waiting; retry later")
            now = self._clock()
            rate = self._rate.measured(now)
            if (
                rate is not None
                # Whom nothing is before, a worker takes next, whatever was measured.
                and self._turns.requests
                and self._turns.ahead(client, samples) / rate > ticket.deadline - now
            ):
                raise self._overloaded(
                    "too many samples are waiting to answer before the deadline; retry later"
                )
            if self._gate is not None:
                self._gate(client, samples, held)
            self._held[client] = held + samples
            self._inside += samples
            self._unfinished += samples
            self._turns.add(ticket)
            if not self._gathering:
                self._changed.notify()
            elif self._turns.samples >= self._enough:
                self._filled.notify()

    def take(self, most: int, wait: float = 0.0) -> list[Ticket]:
        """Requests of up to `most` samples together (one larger request by itself), in turns.

        Blocks until there is one, and then, while others are being answered, for up to `wait`
        seconds until there are `most` samples.
        Whose deadline has passed or whose caller has gone is not among them. Empty once closed and
        nothing waits.
        """
        while True:
            with self._lock:
                # One worker at a time looks after what comes; the others are left asleep.
                while self._gathering or not self._turns.requests:
                    if self._closed and not self._turns.requests:
                        return []
                    self._changed.wait()
                if wait > 0:
                    self._gather(most, wait)
                taken, dropped = self._next(most)
                if self._turns.requests:
                    # Whoever was told of these may have been this one.
                    self._changed.notify()
            for ticket in dropped:
                _tell(ticket)
            if taken:
                return taken

    def finish(self, *tickets: Ticket) -> None:
        """Requests that were taken are answered, or have failed.

        Called once for each by who took it. Its room is free again once its call has ended, too.
        """
        with self._lock:
            for ticket in tickets:
                ticket.finished = True
                self._unfinished -= ticket.samples
                if ticket.left:
                    self._free(ticket)
            if self._gathering and self._turns.samples >= self._unfinished:
                # Nobody else is being answered: there is nobody to wait for.
                self._filled.notify()

    def leave(self, ticket: Ticket) -> bool:
        """Its call has ended, however; True where it was waiting, and is dropped.

        One that was taken before ends as it would. Further calls do nothing.
        """
        with self._lock:
            if ticket.left:
                return False
            ticket.left = True
            if ticket.finished:
                self._free(ticket)
            if not self._turns.remove(ticket):
                return False
            self._drop(ticket)
            if not self._turns.requests:
                self._rate.rest()
            return True

    def close(self) -> None:
        """Nobody is admitted any more; `take` hands out what waits, then nothing."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            self._filled.notify_all()

    def _gather(self, most: int, wait: float) -> None:
        """Until a batch is full, nothing waits any more, or time is up.

        At once where nothing else is at work: an idle service has nobody to wait for, and whoever
        is being answered may soon ask again.
        """
        end = self._clock() + wait
        self._gathering = True
        while not (self._closed or self.draining):
            self._enough = min(most, self._unfinished)
            left = end - self._clock()
            if not 0 < self._turns.samples < self._enough or left <= 0:
                break
            if not self._filled.wait(left):
                break
        self._gathering = False

    def _next(self, most: int) -> tuple[list[Ticket], list[Ticket]]:
        """The next batch, and what was dropped on the way."""
        now = self._clock()
        taken: list[Ticket] = []
        dropped: list[Ticket] = []
        room = most
        while self._turns.requests:
            ticket = self._turns.head()
            if ticket.deadline <= now:
                self._turns.remove(ticket)
                ticket.left = True
                self._drop(ticket)
                dropped.append(ticket)
            elif taken and ticket.samples > room:
                # It keeps its turn, and begins the next batch.
                break
            else:
                taken.append(self._turns.pop())
                room -= ticket.samples
        if taken:
            self._rate.took(now, most - room, more=self._turns.requests > 0)
        elif not self._turns.requests:
            self._rate.rest()
        return taken, dropped

    def _drop(self, ticket: Ticket) -> None:
        self._unfinished -= ticket.samples
        self._free(ticket)

    def _free(self, ticket: Ticket) -> None:
        self._inside -= ticket.samples
        held = self._held[ticket.client] - ticket.samples
        if held:
            self._held[ticket.client] = held
        else:
            del self._held[ticket.client]

    def _overloaded(self, message: str) -> Unavailable:
        rate = self._rate.measured(self._clock()) or self._room / RETRY_SECONDS
        return Unavailable(Reason.OVERLOADED, message, self._spread(self._inside / rate))

    def _spread(self, seconds: float) -> float:
        """Around `seconds`, so that not all who were refused together come back together."""
        return min(max(seconds * (0.5 + self._chance()), _SHORTEST), _LONGEST)


def _tell(ticket: Ticket) -> None:
    if ticket.on_dropped is None:
        return
    try:
        ticket.on_dropped()
    except Exception as error:
        # What was taken together with it must not be lost.
        log.error("a dropped request could not be told: %s", type(error).__name__)
