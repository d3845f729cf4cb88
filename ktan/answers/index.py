"""Which rows answer which samples: sorted digests, searched many at a time.

A digest's 32 bytes are compared as a whole, as numpy compares byte strings of one length. The
sorted digests of a shard lie in its file and are mapped; of requests that are in no shard yet, a
few thousand rows, they are kept in memory.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 16
"""Digests that are looked for at a time."""

Digests = npt.NDArray[np.uint8]
"""uint8 [n, 32]."""
Positions = npt.NDArray[np.int64]
Keys = npt.NDArray[np.bytes_]
"""Digests as byte strings of length 32, [n]."""


def checked(digests: np.ndarray) -> Digests:
    """Raises ValueError unless they are uint8 [n, 32]."""
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != 32:
        raise ValueError(f"digests are uint8 [n, 32], not {digests.dtype} {digests.shape}")
    return digests


def keys(digests: np.ndarray) -> Keys:
    """The digests as values that numpy sorts and compares whole."""
    return np.ascontiguousarray(checked(digests)).view("S32").reshape(-1)


def different(digests: Digests) -> Digests:
    """Each digest once, in the order of first occurrence."""
    first = DigestRows(digests).find(digests) == np.arange(len(digests))
    return digests if first.all() else digests[first]


def joined(parts: Sequence[Keys]) -> Keys:
    """All keys of parts that ascend each, ascending, each once; [n]."""
    limits = [bytes([first]) for first in range(1, 256)]
    cuts = [[0, *np.searchsorted(part, limits).tolist(), len(part)] for part in parts]

    def stretch(number: int) -> Keys:
        found: Keys = np.concatenate(
            [part[cut[number] : cut[number + 1]] for part, cut in zip(parts, cuts, strict=True)]
        )
        return np.unique(found)

    return np.concatenate([stretch(number) for number in range(256)])


def _leading(digests: Digests) -> npt.NDArray[np.uint64]:
    """Their first eight bytes as numbers that are ordered as they are, [n]."""
    return checked(digests)[:, :8].copy().view(">u8").reshape(-1).astype(np.uint64)


def find(sorted_keys: Keys, wanted: Keys) -> Positions:
    """The first place of each of `wanted` (ascending, each once) in `sorted_keys`; -1: none.

    O(small · log(large)) of the two lengths, whichever is the smaller.
    """
    found = np.full(len(wanted), -1, dtype=np.int64)
    if len(sorted_keys) == 0 or len(wanted) == 0:
        return found
    if len(wanted) <= len(sorted_keys):
        places = np.searchsorted(sorted_keys, wanted)
        places[places == len(sorted_keys)] = 0
        hit = sorted_keys[places] == wanted
        found[hit] = places[hit]
        return found
    places = np.searchsorted(wanted, sorted_keys)
    places[places == len(wanted)] = 0
    # Backwards, so that of equal keys the first is what stays.
    hits = np.flatnonzero(wanted[places] == sorted_keys)[::-1]
    found[places[hits]] = hits
    return found


def _find_within(sorted_keys: Keys, wanted: Keys) -> Positions:
    """`find`, which looks at the stretch between the first and the last of `wanted` alone."""
    begin = int(np.searchsorted(sorted_keys, wanted[0], side="left"))
    end = int(np.searchsorted(sorted_keys, wanted[-1], side="right"))
    found = find(sorted_keys[begin:end], wanted)
    found[found >= 0] += begin
    return found


class DigestRows:
    """Where each of many digests stands; 16 bytes a digest in memory beside the digests."""

    def __init__(self, digests: Digests) -> None:
        self._digests = checked(digests)
        leading = _leading(digests)
        self._order = np.argsort(leading, kind="stable")
        self._sorted = leading[self._order]

    def find(self, digests: Digests) -> Positions:
        """The first row of each, int64 [n]; -1 where there is none."""
        rows = np.full(len(checked(digests)), -1, dtype=np.int64)
        for start in range(0, len(digests), _BLOCK):
            rows[start : start + _BLOCK] = self._rows(digests[start : start + _BLOCK])
        return rows

    def _rows(self, wanted: Digests) -> Positions:
        leading = _leading(wanted)
        places = np.searchsorted(self._sorted, leading, side="left")
        ends = np.searchsorted(self._sorted, leading, side="right")
        rows = np.full(len(wanted), -1, dtype=np.int64)
        open_ = np.flatnonzero(places < ends)
        # More than once only where digests share their first eight bytes and no more.
        while len(open_):
            candidates = self._order[places[open_]]
            same = keys(self._digests[candidates]) == keys(wanted[open_])
            rows[open_[same]] = candidates[same]
            places[open_] += 1
            open_ = open_[~same & (places[open_] < ends[open_])]
        return rows


class TapIndex:
    """Where the answers of one tap lie: file number and row, by digest."""

    def __init__(self) -> None:
        self._shards: list[tuple[int, Keys]] = []
        self._loose: list[tuple[int, Digests]] = []
        self._sorted: tuple[Keys, Positions, Positions] | None = None

    def add_shard(self, file: int, digests: Digests) -> None:
        """Rows of a file whose digests ascend."""
        self._shards.append((file, keys(digests)))

    def add(self, file: int, digests: Digests) -> None:
        """Rows of a file in any order."""
        self._loose.append((file, digests))
        self._sorted = None

    def clear_loose(self) -> None:
        """Forgets what is in no shard."""
        self._loose, self._sorted = [], None

    def find(self, digests: Digests) -> tuple[Positions, Positions]:
        """File and row of each digest, int64 [n]; both -1 where there is none.

        Of several answers to one sample the one that came first.
        """
        files = np.full(len(checked(digests)), -1, dtype=np.int64)
        rows = files.copy()
        # In blocks of neighbours, each of which is looked for in a stretch of every file alone.
        order = np.argsort(_leading(digests))
        for start in range(0, len(order), _BLOCK):
            block = order[start : start + _BLOCK]
            files[block], rows[block] = self._block(keys(digests[block]))
        return files, rows

    def _block(self, digests: Keys) -> tuple[Positions, Positions]:
        wanted, inverse = np.unique(digests, return_inverse=True)
        files = np.full(len(wanted), -1, dtype=np.int64)
        rows = files.copy()
        for number, shard in self._shards:
            found = _find_within(shard, wanted)
            new = (found >= 0) & (files < 0)
            files[new], rows[new] = number, found[new]
        loose, of_file, of_row = self._searchable()
        found = _find_within(loose, wanted)
        new = (found >= 0) & (files < 0)
        files[new], rows[new] = of_file[found[new]], of_row[found[new]]
        return files[inverse], rows[inverse]

    def parts(self) -> Iterator[Keys]:
        """All keys, in arrays that ascend each."""
        yield from (shard for _, shard in self._shards)
        yield self._searchable()[0]

    def _searchable(self) -> tuple[Keys, Positions, Positions]:
        """Keys, files and rows of what is in no shard, sorted; the first that came first."""
        if self._sorted is None:
            none = np.empty((0, 32), dtype=np.uint8)
            found = keys(np.concatenate([none, *(digests for _, digests in self._loose)]))
            counts = [len(digests) for _, digests in self._loose]
            files = np.repeat(np.array([file for file, _ in self._loose], dtype=np.int64), counts)
            rows = np.concatenate([np.arange(0), *map(np.arange, counts)])
            order = np.argsort(found, kind="stable")
            self._sorted = found[order], files[order], rows[order]
        return self._sorted
