"""Noise drawn ahead of the request path, in memory only."""

import os
import threading
import weakref

import numpy as np
import numpy.typing as npt

from privacy.after_fork import renew_after_fork
from privacy.noise import Closeness, NoiseSource

CAPACITY = 2**18
"""Draws held at most: 2 MiB."""

_PORTION = 2**15


class NoiseReservoir:
    """A noise source that hands out what a background thread drew from `source` before.

    Each draw leaves once and is overwritten here when it does. What is not there is drawn at once,
    so that a request waits no longer than without a reservoir. Thread-safe, if `source` is. A
    forked child begins with an empty one. Nothing of it is ever written anywhere.
    """

    def __init__(self, source: NoiseSource, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._source = source
        self._capacity = capacity
        self._stock: _Stock | None = None
        self._starting = threading.Lock()
        renew_after_fork(self)

    @property
    def name(self) -> str:
        """The name of the source that is drawn from."""
        return self._source.name

    @property
    def closeness(self) -> Closeness:
        """(η, τ) of one draw: those of the source, since which draws are taken does not depend on
        their values."""
        return self._source.closeness

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        """`count` independent draws: int64 [count]."""
        ready = self._own_stock().take(count) if count > 0 else _NONE
        if ready.size == count:
            return ready
        return np.concatenate([ready, self._source.sample(count - ready.size)])

    def renew(self) -> None:
        """Forget what was drawn, as a forked child must: its parent hands it out."""
        if self._stock is not None:
            self._stock.forget()
        self._stock = None
        self._starting = threading.Lock()

    def _own_stock(self) -> "_Stock":
        stock = self._stock
        if stock is not None and stock.process == os.getpid():
            return stock
        with self._starting:
            if self._stock is None or self._stock.process != os.getpid():
                self._stock = _Stock(self._source, self._capacity)
                weakref.finalize(self, self._stock.end)
            return self._stock


_NONE = np.zeros(0, dtype=np.int64)


class _Stock:
    """The draws of one process, and the thread that replaces what was taken."""

    def __init__(self, source: NoiseSource, capacity: int) -> None:
        self.process = os.getpid()
        self._source = source
        self._draws = np.zeros(capacity, dtype=np.int64)
        self._held = 0
        self._ended = False
        self._wanted = threading.Condition()
        threading.Thread(target=self._keep_full, name="noise", daemon=True).start()

    def take(self, count: int) -> npt.NDArray[np.int64]:
        """Up to `count` draws, as many as there are."""
        with self._wanted:
            first = max(0, self._held - count)
            taken = self._draws[first : self._held].copy()
            self._draws[first : self._held] = 0
            self._held = first
            if self._is_low():
                self._wanted.notify()
        return taken

    def end(self) -> None:
        """Let the thread end; for a stock that nobody takes from any more."""
        if self.process != os.getpid():
            # There is no such thread here, and it may hold the lock for ever.
            return
        with self._wanted:
            self._ended = True
            self.forget()
            self._wanted.notify()

    def forget(self) -> None:
        """Overwrite all draws; where no other thread takes or adds."""
        self._draws[:] = 0
        self._held = 0

    def _is_low(self) -> bool:
        return self._held <= self._draws.size // 2

    def _keep_full(self) -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._ended or self._is_low())
            while True:
                with self._wanted:
                    missing = min(_PORTION, self._draws.size - self._held)
                    if self._ended:
                        return
                if missing == 0:
                    break
                # Drawn outside the lock: nobody waits for it.
                drawn = self._source.sample(missing)
                with self._wanted:
                    if not self._ended:
                        self._draws[self._held : self._held + missing] = drawn
                        self._held += missing
                drawn[:] = 0
