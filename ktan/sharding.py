"""A student whose parameters, gradients and optimiser state are spread over the processes.

torch's own `fully_shard` (FSDP2; Zhao et al. 2023): each layer is brought together only while it
computes. For students that do not fit otherwise; others are faster with a copy everywhere.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ktan.parallel import Group

_WORTH_A_SHARD = 10_000
"""Parameters of a layer that is brought together by itself; smaller ones go with what is around."""


def spread(student: nn.Module, group: Group, device: torch.device) -> None:
    """Shards `student` over `group` in place, every layer of a sequence by itself."""
    # Slow to import, and for few.
    from torch.distributed.fsdp import fully_shard

    mesh = group.mesh(device)
    sequences = [module for module in student.modules() if isinstance(module, nn.Sequential)]
    layers = dict.fromkeys(layer for sequence in sequences for layer in sequence)
    # The innermost first: what is sharded already is no longer a part of what is around it.
    for layer in reversed(layers):
        if sum(value.numel() for value in layer.parameters()) >= _WORTH_A_SHARD:
            fully_shard(layer, mesh=mesh)
    fully_shard(student, mesh=mesh)


def is_spread(value: Tensor) -> bool:
    """Whether it is one process's part of a tensor (torch's DTensor)."""
    return hasattr(value, "full_tensor")


def whole(value: Tensor) -> Tensor:
    """All of a tensor; of one that is spread every process must ask, in the same order."""
    return cast(Any, value).full_tensor() if is_spread(value) else value


def load_whole(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """`module.load_state_dict(values)`, also where parameters are spread."""
    own = dict(module.named_parameters())
    module.load_state_dict(
        {name: like(own[name], value) if name in own else value for name, value in values.items()}
    )


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """The whole `value`, spread as `parameter` is; itself where that is not."""
    if not is_spread(parameter):
        return value
    from torch.distributed.tensor import distribute_tensor

    part = cast(Any, parameter)
    return distribute_tensor(value.to(parameter.device), part.device_mesh, part.placements)
