"""Uniform selection without replacement."""

import torch
from torch import Tensor


def uniform(count: int, candidates: int, generator: torch.Generator | None = None) -> Tensor:
    """int64 [count], distinct, from range(candidates)."""
    return torch.randperm(candidates, generator=generator)[:count]
