"""How fast work is taken up, as measured while there is more of it than the workers can take."""

from __future__ import annotations

from typing import Final

_MEMORY: Final = 20.0
_CERTAIN: Final = 1.0
_STEP: Final = 5.0
"""Seconds that one batch may add: a disk or a database that stood still says nothing of what comes
after it."""
_IDLE: Final = 60.0
"""Seconds without work after which what was measured is forgotten."""


class ServiceRate:
    """Samples a second that the workers take together; not thread-safe.

    Only time in which something always waited counts: with little to do, the time between two
    requests says how often somebody asks, and not how fast they are answered. The clock and the
    counts are all that is looked at, as any client could.
    """

    def __init__(self) -> None:
        self._samples = 0.0
        self._seconds = 0.0
        self._since: float | None = None
        self._last = 0.0

    def took(self, now: float, samples: int, *, more: bool) -> None:
        """A worker has taken so many at `now`, which left something waiting, or nothing."""
        self._forget(now)
        self._last = now
        if self._since is not None:
            self._samples += samples
            self._seconds += min(now - self._since, _STEP)
            if self._seconds > _MEMORY:
                # What was measured long ago counts less and less.
                self._samples, self._seconds = self._samples / 2, self._seconds / 2
        self._since = now if more else None

    def rest(self) -> None:
        """Nothing waits any more."""
        self._since = None

    def measured(self, now: float) -> float | None:
        """Samples a second; None before a second of such time was measured."""
        self._forget(now)
        return self._samples / self._seconds if self._seconds >= _CERTAIN else None

    def _forget(self, now: float) -> None:
        if self._since is None and now - self._last > _IDLE:
            self._samples = self._seconds = 0.0
