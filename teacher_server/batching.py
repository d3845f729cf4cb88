"""Workers between the desk and the answerer: requests of many clients, answered in batches.

    event loop ──admit──▶ desk ──take──▶ worker threads: teacher, release
                                              │
               ◀──deliver── settler thread: one durable transaction for all that is there

While one batch is made durable the next ones are in the teacher. A batch is what waits when a
worker is free; it waits for company for a few milliseconds (`Pace.wait_seconds`), and only while
others are being answered. Whatever is raised ends the requests of its batch and no other's, and
never a worker.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

from teacher_server.answering import Answer, Answerer, Drawn, Outcome, Question
from teacher_server.desk import Desk, Ticket
from teacher_server.observer import Observer, Stage

_AHEAD: Final = 4
"""Batches that may wait for the settler: where the disk is slower than the teacher, the teacher
waits."""


@dataclass(eq=False, kw_only=True)
class Errand(Ticket):
    """A question that waits, and the future that its handler awaits.

    stages: `queue`, `batch` and `settle`, as far as it has come.
    """

    question: Question
    future: asyncio.Future[Answer]
    stages: list[Stage] = field(default_factory=list, init=False)
    _since: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        # Not a method of its own: with no cycle it is gone as soon as nobody needs it.
        self.on_dropped = partial(_cancel, self.future)

    def reached(self, stage: str, now: float) -> None:
        """A stage has ended, and the next one begins."""
        self.stages.append(Stage(stage, self._since, now))
        self._since = now


@dataclass(frozen=True)
class Pace:
    """How requests are gathered for the teacher.

    workers: batches at the teacher at once. batch: samples of several requests in one, at most.
    wait_seconds: that a batch may wait to fill; 0: what is there goes at once.
    """

    workers: int = 2
    batch: int = 64
    wait_seconds: float = 0.0


class Batcher:
    """Answers what a desk admits, from `start` to `stop`."""

    def __init__(self, desk: Desk, answerer: Answerer, pace: Pace, observer: Observer):
        self._desk = desk
        self._answerer = answerer
        self._pace = pace
        self._observer = observer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drawn: queue.Queue[tuple[Sequence[Errand], Drawn] | None] = queue.Queue(_AHEAD)
        self._workers = [
            threading.Thread(target=self._work, name=f"teacher-{number}", daemon=True)
            for number in range(pace.workers)
        ]
        self._settler = threading.Thread(target=self._settle, name="settler", daemon=True)

    def start(self) -> None:
        """Begins to work; called in the event loop that the errands' futures belong to."""
        self._loop = asyncio.get_running_loop()
        for thread in (*self._workers, self._settler):
            thread.start()

    @property
    def working(self) -> bool:
        """Whether every thread is there."""
        return all(thread.is_alive() for thread in (*self._workers, self._settler))

    def stop(self) -> None:
        """Ends once everything that was admitted is settled. Blocks; the event loop must run."""
        self._desk.close()
        for worker in self._workers:
            worker.join()
        self._drawn.put(None)
        self._settler.join()

    def _take(self) -> list[Errand]:
        return cast("list[Errand]", self._desk.take(self._pace.batch, self._pace.wait_seconds))

    def _work(self) -> None:
        while errands := self._take():
            begun = time.monotonic()
            for errand in errands:
                errand.reached("queue", begun)
            self._observer.waiting(*self._desk.waiting)
            try:
                drawn = self._answerer.draw([errand.question for errand in errands])
            except BaseException as error:
                self._deliver(errands, [error] * len(errands))
                continue
            now = time.monotonic()
            for errand in errands:
                errand.reached("batch", now)
            samples = sum(errand.samples for errand in errands)
            self._observer.computed(len(errands), samples, now - begun)
            self._drawn.put((errands, drawn))

    def _settle(self) -> None:
        running = True
        while running:
            group = [self._drawn.get()]
            while not self._drawn.empty():
                group.append(self._drawn.get())
            running = None not in group
            batches = [batch for batch in group if batch is not None]
            if not batches:
                continue
            errands = [errand for some, _ in batches for errand in some]
            begun = time.monotonic()
            try:
                outcomes = self._answerer.settle([drawn for _, drawn in batches])
            except BaseException as error:
                self._deliver(errands, [error] * len(errands))
                continue
            now = time.monotonic()
            for errand in errands:
                errand.reached("settle", now)
            self._observer.settled(len(errands), now - begun)
            self._deliver(errands, outcomes)

    def _deliver(
        self, errands: Sequence[Errand], outcomes: Sequence[Outcome | BaseException]
    ) -> None:
        self._desk.finish(*errands)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_resolve, errands, outcomes)


def _cancel(future: asyncio.Future[Answer]) -> None:
    # Its caller has gone or has no time left; gRPC has told it so, or is about to.
    future.get_loop().call_soon_threadsafe(future.cancel)


def _resolve(errands: Sequence[Errand], outcomes: Sequence[Outcome | BaseException]) -> None:
    for errand, outcome in zip(errands, outcomes, strict=True):
        if errand.future.done():
            continue
        if isinstance(outcome, BaseException):
            errand.future.set_exception(_ordinary(outcome))
            # Its caller may have gone, and nobody asks for it; asyncio would log that as a fault.
            errand.future.exception()
        else:
            errand.future.set_result(outcome)


def _ordinary(error: BaseException) -> Exception:
    """What a future takes, and what ends a call and no more."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"raised {type(error).__name__}")
