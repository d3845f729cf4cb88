"""Calls under way at once, each in a thread of its own; one thread starts them and takes the ends.

Only the calls themselves are made elsewhere: whoever launches and lands needs no lock, however many
are under way.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Generic, NoReturn, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CANCELLING: Final = 5.0


class CalledOff(Exception):
    """Nobody waits for this call any more; it may have been made, and may have had its effect."""


class Cancellable(Protocol):
    """A call that can be broken off, from any thread."""

    def cancel(self) -> object: ...


@dataclass(frozen=True)
class Landing(Generic[Item, Result]):
    """The end of the call for `item`."""

    item: Item
    end: Callable[[], Result]
    """Gives what the call returned, or raises what it raised."""


@dataclass(frozen=True)
class _Pause:
    reason: str
    seconds: float


class Flight(Generic[Item, Result]):
    """`len` says how many are under way: launched, and not landed yet."""

    def __init__(self, call: Callable[[Item], Result], waiting: Callable[[str, float], None]):
        """waiting: hears of pauses, in the thread that lands; of several at once of the first."""
        self._call = call
        self._waiting = waiting
        self._events: SimpleQueue[Landing[Item, Result] | _Pause] = SimpleQueue()
        self._under_way = 0
        self._hurried = threading.Event()
        self._cancelled = False
        self._lock = threading.Lock()
        self._calls: dict[threading.Thread, Cancellable | None] = {}
        self._quiet_until = -math.inf
        self.last_return = -math.inf
        """`time.monotonic` at which a call last returned something."""

    def __len__(self) -> int:
        return self._under_way

    def launch(self, item: Item) -> None:
        """Begins the call for `item`."""
        # What still runs when the process ends is of no use to anybody: it is asked again.
        thread = threading.Thread(target=self._run, args=(item,), daemon=True)
        with self._lock:
            self._calls[thread] = None
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self._calls.pop(thread, None)
            raise
        self._under_way += 1

    def land(self) -> Landing[Item, Result]:
        """Waits for the next call to end; something must be under way."""
        while True:
            event = self._events.get()
            if isinstance(event, Landing):
                self._under_way -= 1
                return event
            self._announce(event)

    def landed(self) -> Iterator[Landing[Item, Result]]:
        """Those that have ended already, without waiting."""
        while True:
            try:
                event = self._events.get_nowait()
            except Empty:
                return
            if isinstance(event, Landing):
                self._under_way -= 1
                yield event

    def hurry(self) -> None:
        """Calls under way may end, and none pauses any more: those raise CalledOff."""
        self._hurried.set()

    def cancel(self) -> None:
        """Breaks off what is under way; what has ended by then is `landed`."""
        self.hurry()
        with self._lock:
            self._cancelled = True
            threads = list(self._calls)
            calls = [call for call in self._calls.values() if call is not None]
        for call in calls:
            call.cancel()
        end = time.monotonic() + _CANCELLING
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    # Within a call

    def watch(self, call: Cancellable) -> None:
        """What `cancel` breaks off, in this thread's call."""
        with self._lock:
            self._calls[threading.current_thread()] = call
            cancelled = self._cancelled
        if cancelled:
            call.cancel()

    def pausing(self, reason: str, seconds: float) -> None:
        """This thread's call pauses."""
        self._events.put(_Pause(reason, seconds))

    def pause(self, seconds: float) -> None:
        """Raises CalledOff as soon as nobody waits any more."""
        if self._hurried.wait(seconds):
            raise CalledOff

    def _run(self, item: Item) -> None:
        try:
            result = self._call(item)
        except BaseException as error:
            self._events.put(Landing(item, functools.partial(_raise, error)))
        else:
            self.last_return = time.monotonic()
            self._events.put(Landing(item, lambda: result))
        finally:
            with self._lock:
                del self._calls[threading.current_thread()]

    def _announce(self, pause: _Pause) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + pause.seconds
            self._waiting(pause.reason, pause.seconds)


def _raise(error: BaseException) -> NoReturn:
    raise error
