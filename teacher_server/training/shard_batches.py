"""Which records a teacher sees in which step: a function of its own shard, and of the seed."""

import numpy as np

from ktan.data.split import Indices


class ShardBatches:
    """Batches of one shard, without end: each pass over the shard in a new order.

    Every teacher takes the same, public number of steps. Were it the number that its own shard, or
    the largest one, asks for, the size of one shard would reach all teachers.
    """

    def __init__(self, records: Indices, batch: int, seed: int, teacher: int) -> None:
        """`records`: positions of the shard's records; `teacher`: its number among the k."""
        self._records = records
        self._batch = batch
        self._seed = (seed, teacher)
        self._pass = -1
        self._order = records

    def __call__(self, step: int) -> Indices:
        """int64 [batch]: the positions that step `step` (from 0) draws; zeros for an empty shard.

        A function of the step alone, so that a resumed run goes on as it would have.
        """
        if len(self._records) == 0:
            return np.zeros(self._batch, dtype=np.int64)
        place = step * self._batch
        parts: list[np.ndarray] = []
        missing = self._batch
        while missing:
            number, offset = divmod(place, len(self._records))
            part = self._pass_order(number)[offset : offset + missing]
            parts.append(part)
            place += len(part)
            missing -= len(part)
        return np.concatenate(parts)

    def _pass_order(self, number: int) -> np.ndarray:
        if number != self._pass:
            generator = np.random.default_rng((*self._seed, number))
            self._order = generator.permutation(self._records)
            self._pass = number
        return self._order
