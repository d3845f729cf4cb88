"""The samples that a score puts first."""

import torch
from torch import Tensor

from ktan.selection.rounds import check_count, not_asked
from ktan.selection.uniform import uniform


def lowest(
    scores: Tensor,
    count: int,
    generator: torch.Generator | None = None,
    *,
    already: Tensor | None = None,
) -> Tensor:
    """int64 [count] on the CPU: the samples of smallest score without `already`, smallest first.

    `scores`: float [n]. Equal scores come in random order: a student that knows nothing yet scores
    all samples alike, and data sets are often sorted by class.
    """
    free = not_asked(len(scores), already)
    check_count(count, free)
    order = uniform(int(free.sum()), len(scores), generator, already=already)
    return order[scores.cpu()[order].argsort(stable=True)[:count]]
