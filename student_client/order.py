"""What is still to be asked, sample by sample and tap by tap, and what of it may cost something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktan.answers import AnswerStore
from student_client.fetching import lacking

Digests = npt.NDArray[np.uint8]
"""uint8 [n, 32]."""


@dataclass(frozen=True)
class Order:
    """What an answer store lacks of the samples and taps that are wanted."""

    taps: tuple[str, ...]
    """Those that are wanted, in the teacher's order."""
    begun: Mapping[bytes, frozenset[str]]
    """Sample → taps of requests that an earlier run began, and that go first."""
    lacking: Mapping[bytes, frozenset[str]]
    """Sample → the wanted taps that are not here."""
    later: int = 0
    """Further samples, not chosen yet."""
    spare: int = 0
    """Samples outside the choice whose answers are here: so many of `later` may cost nothing."""

    @classmethod
    def of(
        cls,
        store: AnswerStore,
        wanted: Digests,
        taps: Sequence[str],
        later: int = 0,
        candidates: Digests | None = None,
    ) -> Order:
        """What is to be asked for these taps of `wanted` and of `later` samples more, which will be
        chosen among `candidates`."""
        begun: dict[bytes, frozenset[str]] = {}
        for request in store.pending():
            for row in request.digests:
                key = row.tobytes()
                begun[key] = begun.get(key, frozenset()) | set(request.taps)
        missing = {
            row.tobytes(): frozenset(names)
            for names, rows in lacking(store, wanted, taps).items()
            for row in rows
        }
        spare = 0
        if later and candidates is not None:
            here = candidates[~store.missing(candidates, taps)]
            spare = len({row.tobytes() for row in here} - {row.tobytes() for row in wanted})
        return cls(tuple(taps), begun, missing, later, min(later, spare))

    @property
    def samples(self) -> int:
        """Different samples of which anything is asked."""
        return len(self.begun.keys() | self.lacking.keys()) + self.later

    @property
    def at_most(self) -> dict[tuple[str, ...], int]:
        """Taps → samples of which these are asked: what the whole order costs at most."""
        return self._counted(
            (
                self.begun.get(key, frozenset()) | self.lacking.get(key, frozenset())
                for key in self.begun.keys() | self.lacking.keys()
            ),
            self.later,
        )

    @property
    def certain(self) -> dict[tuple[str, ...], int]:
        """The same without what was begun, which may have been charged then and is never refused
        here, and without what is `spare`."""
        return self._counted(
            (names - self.begun.get(key, frozenset()) for key, names in self.lacking.items()),
            self.later - self.spare,
        )

    def _counted(self, asked: Iterable[frozenset[str]], whole: int) -> dict[tuple[str, ...], int]:
        """Of samples that lack these taps, and of `whole` samples that lack all."""
        counts = Counter(tuple(sorted(names)) for names in asked if names)
        counts[tuple(sorted(self.taps))] += whole
        return {names: count for names, count in counts.items() if count}
