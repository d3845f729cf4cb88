"""The nearest point of the probability simplex."""

import torch
from torch import Tensor


def project_to_simplex(vectors: Tensor) -> Tensor:
    """The nearest point (in L2) of the probability simplex; float [..., classes].

    The simplex is convex and holds the clean answer, so the projection is never farther from it
    than the noisy answer was. It is biased: small entries are cut to zero. Held, Wolfe & Crowder
    1974; Duchi et al. 2008, Figure 1.
    """
    return (vectors - simplex_threshold(vectors)).clamp(min=0)


def simplex_threshold(vectors: Tensor) -> Tensor:
    """τ [..., 1], of which the positive part of `vectors` − τ sums to 1."""
    ordered = vectors.sort(dim=-1, descending=True).values
    ranks = torch.arange(1, vectors.shape[-1] + 1, device=vectors.device, dtype=vectors.dtype)
    thresholds = (ordered.cumsum(dim=-1) - 1) / ranks
    support = (ordered > thresholds).sum(dim=-1, keepdim=True)
    return thresholds.gather(-1, support - 1)
