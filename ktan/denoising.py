"""Shrinkage of noisy answers: post-processing, free of charge."""

from typing import Literal, get_args

import torch
from torch import Tensor

from ktan.errors import UserError

Denoising = Literal["none", "simplex"]


def denoise(probabilities: Tensor, how: Denoising) -> Tensor:
    """Released probabilities [n, classes] as they are, or projected onto the simplex."""
    if how not in get_args(Denoising):
        raise UserError(f"denoise is {how!r}; it is one of {', '.join(get_args(Denoising))}")
    return project_to_simplex(probabilities) if how == "simplex" else probabilities


def project_to_simplex(vectors: Tensor) -> Tensor:
    """The nearest point (in L2) of the probability simplex; float [..., classes].

    The simplex is convex and holds the clean answer, so the projection is never farther from it
    than the noisy answer was. It is biased: small entries are cut to zero. Held, Wolfe & Crowder
    1974; Duchi et al. 2008, Figure 1.
    """
    ordered = vectors.sort(dim=-1, descending=True).values
    ranks = torch.arange(1, vectors.shape[-1] + 1, device=vectors.device, dtype=vectors.dtype)
    thresholds = (ordered.cumsum(dim=-1) - 1) / ranks
    support = (ordered > thresholds).sum(dim=-1, keepdim=True)
    return (vectors - thresholds.gather(-1, support - 1)).clamp(min=0)
