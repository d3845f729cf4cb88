"""Greedy k-centre: every sample has a selected one near it (Gonzalez 1985; RONA's selection).

Farthest-first traversal needs each sample's distance to its nearest centre, after every centre. One
pass over all samples a centre reads n·d numbers and computes little with them: memory sets the
pace. Here only a *pool* of the farthest samples is kept up to date. A sample outside the pool can
only come nearer, so the farthest of the pool is the farthest of all for as long as it is not nearer
than the farthest outside was when the pool was made. Then all samples are brought up to date by one
matrix product with the centres found meanwhile, and the next pool is made. The same greedy choice,
at the pace of the arithmetic.
"""

import torch
from torch import Tensor

from ktan.selection.rounds import check_count, not_asked
from ktan.spool import spooled

_POOL, _LEAST, _TO_FOUND = 2048, 64, 16
"""Samples kept up to date: so many (16 MB of distances between them), but not more than sixteen
times what the pool before gave, or sixty-four, where pools give little."""
_CENTRES, _TILE = 512, 1 << 23
"""Centres, and distances, of one matrix product: 32 MB beside the features. Smaller ones spend more
time waiting for each other's threads where other work runs on the machine."""
_CHOSEN = -1.0
"""Below every distance: never chosen twice, even where all samples coincide."""


@torch.no_grad()
def k_centre(
    features: Tensor,
    count: int,
    generator: torch.Generator | None = None,
    *,
    already: Tensor | None = None,
    pool: int = _POOL,
) -> Tensor:
    """Farthest-first traversal; int64 [count] on the CPU, distinct, in order of selection.

    `features`: float [n, d], on any device. `already`: int64 indices of the centres there are;
    none of them is chosen, and each next centre is the sample farthest (L2) from all centres so
    far; where there are none yet, the first is drawn at random. `pool`: samples kept up to date
    between passes; it sets the pace, not the choice. The covering radius is at most twice the best
    possible.

    Distances are float32, |a|² + |b|² − 2ab about the features' mean: squared distances that
    differ by less than about 1e-6 of the largest squared norm may be taken for equal. Up to
    O(n·d) time a centre, most of it in matrix products; O(n) memory beside one copy of the
    features, which lies in a file where it is large (`ktan.spool`). Raises ValueError for features
    that are not finite.
    """
    free = not_asked(len(features), already)
    check_count(count, free)
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    points = _centred(features)
    asked = (~free).nonzero().squeeze(1).to(points.device)
    # Autocast would compute the products in bf16.
    with torch.autocast(points.device.type, enabled=False):
        return _traverse(points, count, asked, generator, pool)


def _centred(features: Tensor) -> Tensor:
    """float32 [n, d] about their mean, at most about 1 each: neither overflows nor vanishes."""
    features = features.detach()
    on_disk = features.device.type == "cpu"
    points = (
        spooled(features.shape, torch.float32)
        if on_disk
        else features.new_empty(features.shape, dtype=torch.float32)
    )
    points.copy_(features)
    if points.numel() == 0:
        return points
    largest = torch.stack(points.aminmax()).abs().max()
    if not largest.isfinite():
        raise ValueError("features are not finite")
    points /= largest.clamp(min=1e-30)
    # The products cancel least about the mean.
    return points.sub_(points.mean(dim=0))


def _traverse(
    points: Tensor, count: int, asked: Tensor, generator: torch.Generator | None, pool: int
) -> Tensor:
    squared = torch.linalg.vector_norm(points, dim=1).square_()
    nearest = torch.full_like(squared, float("inf"))
    chosen = torch.empty(count, dtype=torch.int64, device=points.device)
    number = 0
    if len(asked) == 0:
        chosen[:1] = torch.randint(len(points), (1,), generator=generator)
        asked, number = chosen[:1], 1
    _bring_up_to_date(nearest, points, squared, asked)
    size = pool
    while number < count:
        found = _from_pool(nearest, points, squared, size, count - number)
        size = min(pool, max(_LEAST, _TO_FOUND * len(found)))
        chosen[number : number + len(found)] = found
        number += len(found)
        if number < count:
            _bring_up_to_date(nearest, points, squared, found)
    return chosen.cpu()


def _from_pool(nearest: Tensor, points: Tensor, squared: Tensor, pool: int, count: int) -> Tensor:
    """The next centres, at least one and at most `count`, as far as one pool can tell them.

    `nearest`: float32 [n], squared distances to the nearest centre, all up to date.
    """
    farthest, rows = nearest.topk(min(pool + 1, len(nearest)))
    outside = float(farthest[-1]) if len(rows) > pool else _CHOSEN
    rows, distances = rows[:pool], farthest[:pool].clone()
    members, norms = points[rows], squared[rows]
    # All at once: a product a centre would be too small for threads to share.
    between = torch.addmm(norms, members, members.T, alpha=-2).add_(norms[:, None]).clamp_(min=0)
    found: list[int] = []
    while len(found) < count:
        value, place = distances.max(dim=0)
        if found and float(value) < outside:
            break
        at = int(place)
        found.append(at)
        torch.minimum(distances, between[at], out=distances)
        distances[at] = _CHOSEN
    return rows[found]


def _bring_up_to_date(nearest: Tensor, points: Tensor, squared: Tensor, centres: Tensor) -> None:
    """Lowers each of `nearest` to the squared distance to the nearest of `centres`, in place."""
    for some in torch.split(centres, _CENTRES):
        transposed, norms = points[some].T.contiguous(), squared[some]
        rows = max(1, _TILE // len(some))
        for start in range(0, len(points), rows):
            part = slice(start, start + rows)
            to_them = torch.addmm(norms, points[part], transposed, alpha=-2).amin(dim=1)
            # Rounding may leave a distance below 0.
            to_them.add_(squared[part]).clamp_(min=0)
            nearest[part] = torch.minimum(nearest[part], to_them)
    nearest[centres] = _CHOSEN
