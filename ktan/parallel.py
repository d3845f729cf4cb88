"""Several processes that train one student: what they say to one another.

Each computes its share of every step's samples; gradients, batch statistics and figures are means
over all of them, so that any number of processes takes the steps of one. torchrun's environment
says who is who; messages go by gloo on the CPU, and by NCCL between GPUs. They are neither
encrypted nor authenticated, and of public samples: a private network is theirs.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ktan.errors import ProcessLost, UserError
from ktan.ranks import ALONE, Ranks

_PATIENCE = timedelta(days=7)
"""While rank 0 asks a service, the others wait; who is gone is noticed without a limit."""
_RESTARTS = "TORCHELASTIC_RESTART_COUNT"
_Done = TypeVar("_Done")


class Group:
    """The processes of one training; where there is one, nothing is said and nothing changes."""

    def __init__(self, ranks: Ranks = ALONE, *, restarted: bool = False) -> None:
        """`restarted`: torchrun has started all of them again, after one had failed."""
        self.ranks = ranks
        self.restarted = restarted
        self._waiting: Any = None

    @property
    def count(self) -> int:
        """How many processes."""
        return self.ranks.count

    @property
    def leads(self) -> bool:
        """Whether this one asks, writes and speaks for all."""
        return self.ranks.rank == 0

    def share(self, samples: int, what: str) -> slice:
        """This process's of a step's `samples`. Raises UserError where shares are not equal."""
        if samples % self.count:
            raise UserError(
                f"a step has {samples} {what} samples, which {self.count} processes cannot share "
                "equally; give a batch that is a multiple"
            )
        size = samples // self.count
        return slice(self.ranks.rank * size, (self.ranks.rank + 1) * size)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Makes each of `tensors` its mean over all processes, in place; all give the same."""
        if self.count == 1 or not tensors:
            return
        by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for tensor in tensors:
            by_kind.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        for kind in by_kind.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in kind])
            self._together(lambda flat=flat: dist.all_reduce(flat))  # type: ignore[misc]
            flat /= self.count
            parts = torch.split(flat, [tensor.numel() for tensor in kind])
            for tensor, part in zip(kind, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over all processes; no gradient goes through it."""
        found = value.detach().clone()
        self.average([found])
        return found

    def from_leader(self, tensors: Sequence[Tensor]) -> None:
        """Gives `tensors` the values that rank 0 has, in place."""
        if self.count == 1:
            return
        for tensor in tensors:
            kept = tensor.detach().clone(memory_format=torch.contiguous_format)
            self._together(lambda kept=kept: dist.broadcast(kept, 0))  # type: ignore[misc]
            tensor.detach().copy_(kept)

    def any(self, flag: bool) -> bool:
        """Whether any process says yes."""
        if self.count == 1:
            return flag
        # On the CPU, by gloo: no GPU is waited for.
        said = torch.tensor(int(flag))
        self._together(lambda: dist.all_reduce(said, dist.ReduceOp.MAX))
        return bool(said)

    def gathered(self, value: Tensor) -> list[Tensor]:
        """Everyone's `value` on the CPU, by rank; all have the same shape."""
        if self.count == 1:
            return [value]
        found = [torch.empty_like(value) for _ in range(self.count)]
        self._together(lambda: dist.all_gather(found, value))
        return found

    def wait(self) -> None:
        """Until all have come here, however long one of them takes."""
        if self.count > 1:
            self._together(lambda: dist.barrier(self._waiting))

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Within, rank 0 first and then the others; all leave together."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()
        self.wait()

    def require_same(self, numbers: Sequence[int], what: str) -> None:
        """Raises UserError where `numbers`, as many everywhere, are not the same everywhere."""
        own = torch.tensor(list(numbers))
        if any(not torch.equal(own, other) for other in self.gathered(own)):
            raise UserError(
                f"the processes of this training do not begin with the same {what}; they must see "
                "the same files under --out, and have devices of one kind"
            )

    def device(self, device: torch.device) -> torch.device:
        """`device`, or of several GPUs this process's own. Raises UserError where there are more
        processes on this machine than GPUs."""
        if device.type == "cuda" and self.ranks.local_count > torch.cuda.device_count():
            raise UserError(
                f"{self.ranks.local_count} processes on a machine with "
                f"{torch.cuda.device_count()} GPUs; start as many as there are"
            )
        return self.ranks.device(device)

    def __deepcopy__(self, memo: object) -> "Group":
        # A copied module is trained by the same processes.
        return self

    def mesh(self, device: torch.device) -> DeviceMesh:
        """All processes in a row, as torch's own sharding wants them."""
        return init_device_mesh(device.type, (self.count,))

    @contextmanager
    def open(self, meeting: str = "env://") -> Iterator["Group"]:
        """Within, the processes are connected. `meeting`: where they find one another, as torch's
        `init_process_group` takes it; torchrun's environment. Raises UserError where they do not.
        """
        if self.count == 1:
            yield self
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(self.ranks.local_rank % torch.cuda.device_count())
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                init_method=meeting,
                rank=self.ranks.rank,
                world_size=self.count,
            )
            self._waiting = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the {self.count} processes of this training do not find together: {error}"
            ) from error
        try:
            yield self
        finally:
            dist.destroy_process_group()

    def _together(self, exchange: Callable[[], _Done]) -> _Done:
        """Raises ProcessLost where another process did not take part to the end."""
        try:
            return exchange()
        except RuntimeError as error:
            # Gloo has no error of its own; what is not about the connection is not ours.
            if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
                raise
            raise ProcessLost(
                "another process of this training is gone; it goes on from its last checkpoint "
                "when all are started again"
            ) from error


ONE = Group()
"""A process that trains by itself."""


def group_of(environment: Mapping[str, str] = os.environ) -> Group:
    """As torchrun's environment says; alone without it. Raises UserError where it is half there."""
    ranks = Ranks.chosen(None, None, environment)
    if ranks is None:
        return ONE
    return Group(ranks, restarted=environment.get(_RESTARTS, "0") != "0")
