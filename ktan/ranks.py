"""Which of several processes this is, where they share one training.

An ensemble's private teachers are dealt in stacks (`teacher_server.training.shards`): a stack's
weights are a function of its own shards and of public settings, never of who trains it, so any
number of ranks makes the same teachers. Those ranks tell one another nothing but what stands in the
files of OUT.partial, on storage that all of them see: no weights cross a network by themselves, and
who dies leaves what was written. Ranks that train one public student together share each step, and
do talk (`ktan.parallel`).
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from ktan.errors import UserError

_Found = TypeVar("_Found")
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes; rank 0 also does what is to be done once, and writes the result."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Among those on this machine."""
    local_count: int = 1
    """How many of them share this machine's cores and GPUs."""

    @classmethod
    def chosen(
        cls, rank: int | None, ranks: int | None, environment: Mapping[str, str]
    ) -> "Ranks | None":
        """As the options say, else as torchrun's environment does; None where neither speaks.

        Raises UserError for numbers that cannot be.
        """
        local = (0, 1)
        if rank is None and ranks is None:
            if not set(_TORCHRUN) <= environment.keys():
                return None
            try:
                rank, ranks, *local_numbers = (int(environment[name]) for name in _TORCHRUN)
            except ValueError as error:
                raise UserError(f"{', '.join(_TORCHRUN)} are not all numbers: {error}") from error
            local = (local_numbers[0], local_numbers[1])
        if rank is None or ranks is None:
            raise UserError("give both --rank and --ranks, or neither")
        if not 0 <= rank < ranks:
            raise UserError(f"--rank is {rank} of --ranks {ranks}; ranks count from 0")
        return cls(rank, ranks, *local)

    def owns(self, stack: int) -> bool:
        """Whether this process trains the stack of that number."""
        return stack % self.count == self.rank

    def cores(self) -> int:
        """How many of this machine's cores are this process's share; at least 1."""
        # A batch system gives a process some of the cores, where Linux can say which.
        asked = getattr(os, "sched_getaffinity", None)
        cores = len(asked(0)) if asked else os.cpu_count() or 1
        return max(1, cores // self.local_count)

    def device(self, device: torch.device) -> torch.device:
        """`device`, or of several GPUs this process's own."""
        if device.type != "cuda" or device.index is not None or self.count == 1:
            return device
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())


ALONE = Ranks()
"""One process that trains all."""


def waited(
    find: Callable[[], _Found | None], stopping: Callable[[], bool] = lambda: False
) -> _Found:
    """What `find` finds, as soon as another rank has left it there.

    Raises KeyboardInterrupt when `stopping` says yes.
    """
    while (found := find()) is None:
        if stopping():
            raise KeyboardInterrupt
        time.sleep(_PAUSE_SECONDS)
    return found
