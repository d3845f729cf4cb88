"""Rows that lie where only some of them can be read at a time."""

from typing import Any

import torch
from torch import Tensor


class OnlyRows:
    """A tensor's rows, read by positions or slices, `most` of them at once."""

    def __init__(self, values: Tensor, most: int) -> None:
        self.shape: tuple[int, ...] = tuple(values.shape)
        self.dtype: torch.dtype = values.dtype
        self._values = values
        self._most = most

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: Any) -> Tensor:
        found = self._values[positions].clone()
        assert found.ndim == len(self.shape)
        assert len(found) <= self._most, f"{len(found)} rows at once"
        return found
