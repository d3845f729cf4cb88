"""The answers of one tap to a list of samples, read from the store's files a batch at a time."""

import operator
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ktan.answers.files import TAP, AnswerFile
from ktan.answers.index import Positions
from ktan.teacher import AnswerTap


class AnswerRows:
    """The answers to n samples, in their order, none of them in memory.

    `rows[positions]` reads those at `positions` from the memory-mapped store and gives a new
    tensor in memory, so that a training step has its answers beside its samples:

        view = store.rows(digests, ["hint"])["hint"]   # digests: uint8 [n, 32], of all samples
        answers = view[batch]                          # batch: int64 [b]; float32 [b, *shape]

    It stays valid while the store grows. Each process opens its own.
    """

    def __init__(
        self,
        tap: AnswerTap,
        files: Mapping[int, AnswerFile],
        file: Positions,
        row: Positions,
    ) -> None:
        """files: by number, with answers of `tap`; file, row: int64 [n], of each sample."""
        self.shape = (len(file), *tap.shape)
        """(n, *shape of one answer)."""
        self.dtype = torch.float32
        self._array = TAP + tap.name
        self._files = files
        self._file = file.astype(np.int32)
        self._row = row.astype(np.int32)

    def __len__(self) -> int:
        return len(self._file)

    def __getitem__(self, positions: Tensor | np.ndarray | slice) -> Tensor:
        """float32 [len(positions), *shape], on the CPU.

        positions: int64 [b] on the CPU, in any order, repeated or negative ones too; or a slice.
        Raises IndexError for one outside of the samples.
        """
        if isinstance(positions, Tensor):
            positions = positions.numpy()
        elif not isinstance(positions, slice | np.ndarray):
            # A single number would give a row without its first dimension.
            raise TypeError(f"positions are int64 [b] or a slice, not {type(positions).__name__}")
        files, rows = self._file[positions], self._row[positions]
        values = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        present = np.unique(files)
        if len(present) == 1:
            np.take(self._answers(operator.index(present[0])), rows, axis=0, out=values)
            return torch.from_numpy(values)
        for number in present.tolist():
            places = np.flatnonzero(files == number)
            values[places] = self._answers(number)[rows[places]]
        return torch.from_numpy(values)

    def _answers(self, number: int) -> np.ndarray:
        """All of one file, mapped: float32 [rows, *shape of one answer]."""
        return self._files[number].arrays[self._array]
