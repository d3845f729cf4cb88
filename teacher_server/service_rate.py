"""How fast work is taken up, as measured while there is more of it than the workers can take."""

from __future__ import annotations

from typing import Final

_MEMORY: Final = 20.0
_CERTAIN: Final = 1.0


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

    def took(self, now: float, samples: int, *, more: bool) -> None:
        """A worker has taken so many at `now`, which left something waiting, or nothing."""
        if self._since is not None:
            self._samples += samples
            self._seconds += now - self._since
            if self._seconds > _MEMORY:
                # What was measured long ago counts less and less.
                self._samples, self._seconds = self._samples / 2, self._seconds / 2
        self._since = now if more else None

    def rest(self) -> None:
        """Nothing waits any more."""
        self._since = None

    @property
    def measured(self) -> float | None:
        """Samples a second; None before a second of such time was measured."""
        return self._samples / self._seconds if self._seconds >= _CERTAIN else None
