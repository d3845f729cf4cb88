"""Was any noise used twice, wherever it came again and whichever way round?

A service that serves its noise again need not serve it in the same place: shifted by a value, in
another tap, backwards, by another process. So every run of L consecutive values is looked up among
all other runs, of all taps, requests and worlds, forwards and backwards. Two runs are the same when
all their values fall into the same bins of w grid steps:

    L = 4, w = 4     a single row of four values, under the same mean
    L = 6, w = 256   under another mean too, which is known to a grid step a teacher only

A run meets another one by chance with probability (w/(2√π·σ))^L, below 2^-79 and 2^-82; among 2^24
values, which make 2^48 pairs in either direction, nothing meets but with probability below 1e-9.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.accounting import SIGMA
from privacy.audit.mechanism.noise_checks import Array, Check

Bins = npt.NDArray[np.int32]

_FINE: Final = (4, 4)
_COARSE: Final = (6, 256)
"""Values in a run, and grid steps in a bin."""
_COMPARED: Final = 2**24
"""Values at most that are compared: 20 bytes of memory for each."""
_LOOKED_AT: Final = 2**20
"""Runs at most that are compared value by value; with more the figure is at least what it says."""
_AT_ONCE: Final = 2**20


def repeated_noise(
    worlds: Sequence[Mapping[str, Array]], answered: int | None = None
) -> Check | None:
    """How many values stand in noise that was there before, of whatever tap, request or world.

    worlds: tap → residuals [n, m] in standard deviations, row by row in the order of drawing.
    answered: values that the service gave in all, where only some were kept. None where there are
    too few values for a single run.
    """
    kept = sum(rows.size for world in worlds for rows in world.values())
    share = min(1.0, _COMPARED / max(kept, 1))
    parts = [
        {name: rows[: int(len(rows) * share)] for name, rows in world.items()} for world in worlds
    ]
    # As it is drawn: a request's values of one tap one after the other.
    by_tap = [rows.reshape(-1) for world in parts for rows in world.values()]
    compared = sum(len(values) for values in by_tap)
    if compared < _FINE[0]:
        return None
    figure = max(_repeated(by_tap, *_FINE), _repeated(by_tap, *_COARSE))
    if any(len(world) > 1 for world in parts):
        # A service may draw for one sample after the other, all taps of each.
        by_sample = [np.concatenate(list(world.values()), axis=1).reshape(-1) for world in parts]
        figure = max(figure, _repeated(by_sample, *_COARSE))
    detail = (
        f"every run of {_FINE[0]} values among {compared:,} of {answered or kept:,}, "
        "forwards and backwards"
    )
    return Check("noise used again", float(figure), 0.0, "values", detail)


def _repeated(sequences: Sequence[Array], length: int, width: int) -> int:
    """Values covered by runs that are the same as one that begins elsewhere, beside it."""
    bins = np.concatenate([_bins(values, width) for values in sequences])
    keys = _keys(bins, length)
    ordered = np.sort(keys)
    doubled = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(doubled):
        return 0
    begins = np.flatnonzero(np.isin(keys, doubled))[:_LOOKED_AT]
    # By key, then by place: each run is held against the first of its key.
    begins = begins[np.argsort(keys[begins], kind="stable")]
    first = np.r_[True, keys[begins[1:]] != keys[begins[:-1]]]
    origin = begins[np.maximum.accumulate(np.where(first, np.arange(len(begins)), 0))]
    offsets = np.arange(length)
    run, before = bins[begins[:, None] + offsets], bins[origin[:, None] + offsets]
    # A hash may meet another by chance, and a run its own mirror image.
    same = (run == before).all(axis=1) | (run == before[:, ::-1]).all(axis=1)
    found = begins[same & (begins - origin >= length)]
    return len(np.unique(found[:, None] + offsets))


def _bins(values: Array, width: int) -> Bins:
    # Half a step more: integers stand within their bins, not on the border of two. What is no noise
    # at all (inf, NaN), other checks find.
    steps = np.clip(np.nan_to_num(values * SIGMA), -(2.0**30), 2.0**30)
    return np.floor((steps + 0.5) / width).astype(np.int32)


def _keys(bins: Bins, length: int) -> npt.NDArray[np.uint64]:
    """A hash of each run of `length` values that is the same for its mirror image."""
    count = max(0, len(bins) - length + 1)
    keys = np.empty(count, dtype=np.uint64)
    for start in range(0, count, _AT_ONCE):
        stop = min(start + _AT_ONCE, count)
        words = bins[start : stop + length - 1].astype(np.uint64)
        columns = [words[place : place + stop - start] for place in range(length)]
        keys[start:stop] = np.minimum(_hash(columns), _hash(columns[::-1]))
    return keys


def _hash(columns: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    key = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key
