"""Entropy: the samples that the student knows least about (Settles 2009; Shannon 1948)."""

import torch
from torch import Tensor

from ktan.selection.ranking import lowest

_ROWS = 4096


def entropy(
    logits: Tensor,
    count: int,
    generator: torch.Generator | None = None,
    *,
    already: Tensor | None = None,
) -> Tensor:
    """int64 [count] on the CPU: largest −Σ_c p_c·log p_c first, none of `already`.

    `logits`: float [n, classes], finite.
    """
    return lowest(-shannon_entropy(logits), count, generator, already=already)


@torch.no_grad()
def shannon_entropy(logits: Tensor) -> Tensor:
    """−Σ_c p_c·log p_c of each sample's probabilities, in nats: float64 [n]."""
    if logits.ndim != 2:
        raise ValueError(f"logits {list(logits.shape)}; one row of classes a sample is wanted")
    return torch.cat(
        [
            torch.special.entr(rows.double().softmax(dim=1)).sum(dim=1)
            for rows in torch.split(logits, _ROWS)
        ]
    )
