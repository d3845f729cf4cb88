"""What is still to be asked, sample by sample and tap by tap, and what of it may cost something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ktan.answers import AnswerStore, DigestRows, different

Digests = npt.NDArray[np.uint8]
"""uint8 [n, 32]."""
Masks = npt.NDArray[np.int64]
"""Of each sample a set of taps, one bit each, in the teacher's order."""


@dataclass(frozen=True, eq=False)
class Order:
    """What an answer store lacks of the samples and taps that are wanted."""

    taps: tuple[str, ...]
    """Those that are wanted, in the teacher's order."""
    names: tuple[str, ...]
    """All that the teacher has: bit i of a mask stands for the i-th."""
    begun: Masks
    """Of each sample, the taps of requests that an earlier run began, and that go first."""
    lacking: Masks
    """Of the same samples, the wanted taps that are not here."""
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
        names = tuple(tap.name for tap in store.manifest.taps)
        requests = store.pending()
        wanted = different(wanted)
        samples = different(np.concatenate([wanted, *(request.digests for request in requests)]))
        rows = DigestRows(samples)
        begun = np.zeros(len(samples), dtype=np.int64)
        for request in requests:
            begun[rows.find(request.digests)] |= _mask(names, request.taps)
        lacking = np.zeros_like(begun)
        places = rows.find(wanted)
        for name in taps:
            lacking[places[store.missing(wanted, [name])]] |= _mask(names, [name])
        spare = 0
        if later and candidates is not None:
            here = different(candidates[~store.missing(candidates, taps)])
            spare = int((DigestRows(wanted).find(here) < 0).sum())
        return cls(tuple(taps), names, begun, lacking, later, min(later, spare))

    @property
    def own(self) -> Order:
        """The same without what an earlier run began."""
        return replace(self, begun=np.zeros_like(self.begun))

    @property
    def samples(self) -> int:
        """Different samples of which anything is asked."""
        return int(np.count_nonzero(self.begun | self.lacking)) + self.later

    @property
    def at_most(self) -> dict[tuple[str, ...], int]:
        """Taps → samples of which these are asked: what the whole order costs at most."""
        return self._counted(self.begun | self.lacking, self.later)

    @property
    def certain(self) -> dict[tuple[str, ...], int]:
        """The same without what was begun, which may have been charged then and is never refused
        here, and without what is `spare`."""
        return self._counted(self.lacking & ~self.begun, self.later - self.spare)

    def _counted(self, asked: Masks, whole: int) -> dict[tuple[str, ...], int]:
        """Of samples that lack these taps, and of `whole` samples that lack all."""
        masks, counts = np.unique(asked[asked > 0], return_counts=True)
        counted = Counter(
            {
                tuple(sorted(name for bit, name in enumerate(self.names) if mask >> bit & 1)): count
                for mask, count in zip(masks.tolist(), counts.tolist(), strict=True)
            }
        )
        counted[tuple(sorted(self.taps))] += whole
        return {names: count for names, count in counted.items() if count}


def _mask(names: Sequence[str], taps: Collection[str]) -> int:
    return sum(1 << bit for bit, name in enumerate(names) if name in taps)
