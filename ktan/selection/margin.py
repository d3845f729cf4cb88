"""Margin: the samples between whose two likeliest classes the student wavers (Settles 2009)."""

import torch
from torch import Tensor

from ktan.selection.ranking import lowest

_ROWS = 4096


def margin(
    logits: Tensor,
    count: int,
    generator: torch.Generator | None = None,
    *,
    already: Tensor | None = None,
) -> Tensor:
    """int64 [count] on the CPU: smallest p₍₁₎ − p₍₂₎ first, none of `already`.

    `logits`: float [n, classes], classes >= 2, finite.
    """
    return lowest(top_two_gap(logits), count, generator, already=already)


@torch.no_grad()
def top_two_gap(logits: Tensor) -> Tensor:
    """p₍₁₎ − p₍₂₎ of each sample's probabilities, in [0, 1]: float64 [n].

    In float64, or every sample of which the student is sure would tie at 1.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits {list(logits.shape)}; a margin is between two classes or more")
    gaps = []
    for rows in torch.split(logits, _ROWS):
        top = rows.double().softmax(dim=1).topk(2, dim=1).values
        gaps.append(top[:, 0] - top[:, 1])
    return torch.cat(gaps)
