"""Parts of the training data, drawn by step number, on the device or streamed to it from the host.

What fits lies on the device as uint8. What does not stays where it is, on the host or in a memory
map: the rows of the next step are read, into pinned memory, while the device works on this one.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ktan.parallel import ONE, Group

DataPlace = Literal["auto", "device", "host"]
_SHARE = 0.5
"""Of the device's free memory that data may take where nobody says."""


class Rows(Protocol):
    """n samples, labels or answers that are read by position: a tensor, or what reads a memory map
    (`ktan.answers`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *shape of one)."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what is read."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: Any, /) -> Tensor:
        """Those at `positions`, int64 [b] on the CPU, or in a slice."""


class Part:
    """Columns of the same samples, walked through together."""

    def __init__(
        self,
        columns: Mapping[str, Rows],
        batch: int,
        seed: tuple[int, int],
        device: torch.device,
        *,
        on_device: bool,
        group: Group = ONE,
        what: str = "",
    ) -> None:
        """`batch`: samples a step of all processes, at most all samples; `seed` of the order.

        Raises UserError for a step of `what` samples that `group` cannot share equally.
        """
        count = len(next(iter(columns.values())))
        self._device = device
        self._columns = dict(columns)
        self._order = Order(count, batch, seed)
        self.share = group.share(self._order.batch, what)
        """Which of a step's samples are this process's."""
        self._ahead: dict[int, Future[dict[str, Tensor]]] = {}
        self._reader: ThreadPoolExecutor | None = None
        if device.type == "cuda":
            if on_device:
                self._columns = {name: _whole(rows, device) for name, rows in columns.items()}
                self._order = Order(count, batch, seed, device)
            else:
                self._reader = ThreadPoolExecutor(1, "data")

    @property
    def batch(self) -> int:
        """Samples a step, of all processes."""
        return self._order.batch

    @property
    def steps_per_pass(self) -> int:
        """Steps in which every sample is seen; 0 where there is none."""
        return self._order.steps_per_pass

    def at(self, step: int) -> dict[str, Tensor]:
        """Column name → [share, ...] on the device, of step number `step`."""
        if self._reader is None:
            return self._read(step)
        asked = self._ahead.pop(step, None) or self._reader.submit(self._pinned, step)
        self._ahead = {step + 1: self._reader.submit(self._pinned, step + 1)}
        # Pinned memory is taken again only after its copy is through: torch's allocator sees to it.
        return {
            name: value.to(self._device, non_blocking=True)
            for name, value in asked.result().items()
        }

    def _pinned(self, step: int) -> dict[str, Tensor]:
        return {name: value.pin_memory() for name, value in self._read(step).items()}

    def _read(self, step: int) -> dict[str, Tensor]:
        positions = self._order.positions(step)[self.share]
        return {name: rows[positions] for name, rows in self._columns.items()}


class Order:
    """An endless walk over range(count) in batches; a new permutation each pass."""

    def __init__(
        self,
        count: int,
        batch: int,
        seed: tuple[int, int],
        device: torch.device | None = None,
    ) -> None:
        self.batch = min(batch, count)
        self._count = count
        self._seed = seed
        self._device = device or torch.device("cpu")
        self._passes: dict[int, Tensor] = {}

    @property
    def steps_per_pass(self) -> int:
        return -(-self._count // self.batch) if self.batch else 0

    def positions(self, step: int) -> Tensor:
        """int64 [batch]."""
        if not self.batch:
            return torch.empty(0, dtype=torch.int64, device=self._device)
        start = step * self.batch
        first, offset = divmod(start, self._count)
        last = (start + self.batch - 1) // self._count
        if first == last:
            return self._pass(first)[offset : offset + self.batch]
        walk = torch.cat([self._pass(number) for number in range(first, last + 1)])
        return walk[offset : offset + self.batch]

    def _pass(self, number: int) -> Tensor:
        if number not in self._passes:
            for old in [key for key in self._passes if key < number - 1]:
                del self._passes[old]
            generator = torch.Generator().manual_seed(mix(*self._seed, number))
            self._passes[number] = torch.randperm(self._count, generator=generator).to(self._device)
        return self._passes[number]


def fits(columns: list[Rows], device: torch.device, place: DataPlace) -> bool:
    """Whether data is to lie on the device: as asked, else where it takes half of what is free."""
    if place != "auto" or device.type != "cuda":
        return place != "host"
    free, _ = torch.cuda.mem_get_info(device)
    return sum(map(_bytes, columns)) <= _SHARE * free


def mix(*numbers: int) -> int:
    """One well-mixed seed of several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _whole(rows: Rows, device: torch.device) -> Tensor:
    held = rows if isinstance(rows, Tensor) else rows[torch.arange(len(rows))]
    return held.to(device)


def _bytes(rows: Rows) -> int:
    return torch.Size(rows.shape).numel() * rows.dtype.itemsize
