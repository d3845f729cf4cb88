"""Greedy k-centre: every sample has a selected one near it (Gonzalez 1985; RONA's selection)."""

import torch
from torch import Tensor


@torch.no_grad()
def k_centre(features: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Farthest-first traversal; int64 [count] on the CPU, distinct, in order of selection.

    `features`: float [n, d], on any device. The first centre is drawn at random, each next one is
    the sample farthest (L2) from all centres so far; the covering radius is at most twice the
    best possible. O(n·d) time a centre, O(n) memory beside the features.
    """
    if not 0 <= count <= len(features):
        raise ValueError(f"{count} centres asked of {len(features)} samples")
    # Scaled by a public constant so that half-precision features neither overflow nor vanish.
    points = features.float()
    points = points / points.abs().max().clamp(min=1e-30)
    squared = points.square().sum(dim=1)
    centre = torch.randint(len(points), (1,), generator=generator).to(points.device)
    chosen = torch.empty(count, dtype=torch.int64, device=points.device)
    nearest = torch.full_like(squared, float("inf"))
    for number in range(count):
        chosen[number : number + 1] = centre
        # |a − b|² = |a|² + |b|² − 2ab: one matrix-vector product; rounding may leave it below 0.
        distance = squared + squared[centre] - 2 * (points @ points.index_select(0, centre)[0])
        nearest = torch.minimum(nearest, distance.clamp(min=0))
        # Never chosen twice, even where all samples coincide.
        nearest[centre] = -1
        centre = nearest.argmax(dim=0, keepdim=True)
    return chosen.cpu()
