"""Optimisers and the one learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from ktan.sharding import is_spread

OptimiserName = Literal["adam", "sgd"]
_WARM_UP = 0.05


def make_optimiser(
    parameters: Iterable[nn.Parameter],
    name: OptimiserName | Literal["adversary"],
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """`adversary` is Adam with β₁ = 0.5 (Radford et al. 2016): less inertia against a mover.

    The learning rate is set before each step (`learning_rate`). All step in one kernel, without
    waiting for the device, with gradient scaling too; but for parameters that are spread over
    processes, for which torch has no such kernel.
    """
    trained = list(parameters)
    fused = not any(map(is_spread, trained))
    if name == "sgd":
        sgd = torch.optim.SGD(
            trained, lr=0.0, momentum=0.9, nesterov=True, weight_decay=weight_decay, fused=fused
        )
        begin_momentum(sgd)
        return sgd
    betas = (0.5, 0.999) if name == "adversary" else (0.9, 0.999)
    return torch.optim.AdamW(trained, lr=0.0, betas=betas, weight_decay=weight_decay, fused=fused)


def begin_momentum(optimiser: torch.optim.Optimizer) -> None:
    """Gives SGD the momentum 0 for parameters that have none yet: the first step is the same.

    The fused step asks for the momentum of all or of none, and a stage may leave parameters
    without a gradient.
    """
    if isinstance(optimiser, torch.optim.SGD):
        for group in optimiser.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                optimiser.state[parameter].setdefault(
                    "momentum_buffer", torch.zeros_like(parameter)
                )


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Linear warm-up over the first 5 % of the steps, then half a cosine down to 0.

    A function of the step alone, so that a resumed run needs no scheduler state.
    """
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
