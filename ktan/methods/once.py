"""What several terms of one turn look at, made once for them all."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from ktan.methods.batch import Batch, View

_Made = TypeVar("_Made")


class OncePerTurn(Generic[_Made]):
    """Calls `make` at the first look at a view, and gives the same at the next ones.

    An objective gives each turn a view of its own, so that nothing outlives what it was made with;
    with gradients and without is made apart.
    """

    def __init__(self, make: Callable[[View, Batch], _Made]) -> None:
        self._make = make
        self._seen: tuple[View, Batch, bool] | None = None
        self._made: _Made | None = None

    def __call__(self, view: View, batch: Batch) -> _Made:
        seen = (view, batch, torch.is_grad_enabled())
        if self._made is None or self._seen is None or not _same(seen, self._seen):
            self._seen, self._made = seen, self._make(view, batch)
        return self._made


def _same(one: tuple[View, Batch, bool], other: tuple[View, Batch, bool]) -> bool:
    return one[0] is other[0] and one[1] is other[1] and one[2] == other[2]
