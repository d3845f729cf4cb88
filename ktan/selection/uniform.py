"""Uniform selection without replacement."""

import torch
from torch import Tensor

from ktan.selection.rounds import check_count, not_asked


def uniform(
    count: int,
    candidates: int,
    generator: torch.Generator | None = None,
    *,
    already: Tensor | None = None,
) -> Tensor:
    """int64 [count], distinct, from range(candidates) without `already`.

    A generator of the same seed gives the same order of all candidates: what follows `already` in
    a later round is what would have followed it in one.
    """
    free = not_asked(candidates, already)
    check_count(count, free)
    order = torch.randperm(candidates, generator=generator)
    return order[free[order]][:count]
