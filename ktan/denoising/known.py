"""Answers' posterior means that were computed before, found by the answers."""

import hashlib

from torch import Tensor

from ktan.spool import spooled

_FIRST = 1 << 12
"""Rows of the first block; each further one has twice as many as that before it."""


class Known:
    """Rows by rows of one width and dtype, on the CPU.

    In memory are some hundred and fifty bytes a row, whatever its width; the rows themselves lie in
    blocks (`ktan.spool`), large ones in a file.
    """

    def __init__(self, like: Tensor) -> None:
        """`like`: a row."""
        self._shape, self._dtype = tuple(like.shape), like.dtype
        self._places: dict[bytes, int] = {}
        self._blocks: list[Tensor] = []

    def suits(self, row: Tensor) -> bool:
        """Whether a row has this width and dtype."""
        return (tuple(row.shape), row.dtype) == (self._shape, self._dtype)

    def get(self, row: Tensor) -> Tensor | None:
        """What was put in for this row, bit for bit; None where nothing was."""
        place = self._places.get(_key(row))
        if place is None:
            return None
        block, within = _split(place)
        return self._blocks[block][within]

    def put(self, row: Tensor, value: Tensor) -> None:
        """Keeps `value` for a row that has none."""
        block, within = _split(len(self._places))
        if block == len(self._blocks):
            self._blocks.append(spooled((_FIRST << block, *self._shape), self._dtype))
        self._blocks[block][within] = value
        self._places[_key(row)] = len(self._places)


def _key(row: Tensor) -> bytes:
    return hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()


def _split(place: int) -> tuple[int, int]:
    """Block number, and the place within it."""
    block = (place // _FIRST + 1).bit_length() - 1
    return block, place - _FIRST * ((1 << block) - 1)
