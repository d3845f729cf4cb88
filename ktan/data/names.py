"""Names of millions of files in a byte a letter: no Python string of any is kept."""

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ktan.data.dataset import UnitIds
from ktan.spool import spooled

_BLOCK = 1 << 14
"""Names that are Python strings at a time."""
_IN_MEMORY = 1 << 24
"""Bytes up to which an array of ids is in memory: few runs look at it more than once."""


class Names:
    """Strings one after another in an array of bytes; read by position, or all in order."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._letters = bytearray()
        self._ends = array("q", [0])
        self.extend(names)

    def extend(self, names: Iterable[str]) -> None:
        """Appends them."""
        for name in names:
            # A file name that is no UTF-8 holds lone surrogates.
            self._letters += name.encode("utf-8", "surrogatepass")
            self._ends.append(len(self._letters))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        """The one at `place`, from 0."""
        start, end = self._ends[place], self._ends[place + 1]
        return self._letters[start:end].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def at(self, places: np.ndarray) -> "Names":
        """Those at `places`, int64 [m]."""
        blocks = (places[start : start + _BLOCK] for start in range(0, len(places), _BLOCK))
        return Names(self[place] for block in blocks for place in block.tolist())


class NamePlaces:
    """Where each of many names stands; 16 bytes a name in memory."""

    def __init__(self, names: Names) -> None:
        self._names = names
        hashes = _hashes(names)
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def find(self, wanted: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Each of `wanted` with each place where it stands, as two numbers."""
        hashes = np.array([hash(name) for name in wanted], dtype=np.int64)
        starts = np.searchsorted(self._sorted, hashes, side="left").tolist()
        ends = np.searchsorted(self._sorted, hashes, side="right").tolist()
        for number, (name, start, end) in enumerate(zip(wanted, starts, ends, strict=True)):
            for place in self._order[start:end].tolist():
                if self._names[place] == name:
                    yield number, place


def repeated_names(names: Names) -> list[str]:
    """Those that occur more than once, in the order of first occurrence."""
    hashes = _hashes(names)
    ascending = np.sort(hashes)
    twice = ascending[1:][ascending[1:] == ascending[:-1]]
    # Different names may share a hash.
    suspects = np.flatnonzero(np.isin(hashes, twice)).tolist() if len(twice) else []
    return [name for name, count in Counter(map(names.__getitem__, suspects)).items() if count > 1]


def string_array(names: Names) -> UnitIds:
    """str [n]; a large one in a file without a name (`ktan.spool`)."""
    strings = _room(len(names), np.dtype(f"=U{max(1, max(map(len, names), default=0))}"))
    remaining = iter(names)
    for start in range(0, len(names), _BLOCK):
        strings[start : start + _BLOCK] = list(itertools.islice(remaining, _BLOCK))
    return strings


def names_of(strings: np.ndarray) -> Names:
    """What `string_array` made of them."""
    starts = range(0, len(strings), _BLOCK)
    return Names(name for start in starts for name in strings[start : start + _BLOCK].tolist())


def ids_at(unit_ids: UnitIds, places: np.ndarray) -> UnitIds:
    """`unit_ids[places]`, kept as `string_array` keeps them; places: int64 [m]."""
    taken = _room(len(places), unit_ids.dtype)
    for start in range(0, len(places), _BLOCK):
        taken[start : start + _BLOCK] = unit_ids[places[start : start + _BLOCK]]
    return taken


def _hashes(names: Names) -> np.ndarray:
    """int64 [n]; of this process alone."""
    return np.fromiter(map(hash, names), dtype=np.int64, count=len(names))


def _room(count: int, dtype: np.dtype[Any]) -> UnitIds:
    size = count * dtype.itemsize
    return spooled((size,), torch.uint8, in_memory=_IN_MEMORY).numpy().view(dtype)
