"""Derived taps: what attention transfer, FSP and AB make of a network's maps.

The same function runs on the teacher's side, before a tap is bounded and perturbed, and on the
student's: what is compared is made in one way.
"""

import torch.nn.functional as F
from torch import Tensor


def attention_map(feature: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """q(F) = mean_c F² brought to unit L2 norm (Zagoruyko & Komodakis 2017, eq. 1 and 2, p = 2).

    `feature`: float [n, c, h, w] → [n, h, w], or [n, *grid] by average pooling (interpolation
    where the grid is finer). A map of nothing but zeros stays zero. Needs no agreement on channels.
    """
    energy = feature.square().mean(dim=1, keepdim=True)
    if grid is not None and tuple(energy.shape[2:]) != grid:
        energy = resized(energy, grid)
    return F.normalize(energy.flatten(1), dim=1).reshape(len(feature), *energy.shape[2:])


def sign_pattern(feature: Tensor) -> Tensor:
    """±1 where a value before its activation is above zero or not (Heo et al. 2019).

    `feature`: float [n, c, h, w], before the activation; the result has its shape. What is not
    finite has no sign and becomes NaN.
    """
    return (feature > 0).to(feature.dtype) * 2 - 1 + feature.detach() * 0


def flow_products(first: Tensor, second: Tensor) -> Tensor:
    """G = F₁ᵀF₂ / (h·w), the flow of the solution procedure (Yim et al. 2017, eq. 1).

    `first` [n, c, h, w], `second` [n, c', h', w'] → [n, c, c'], the larger map pooled to the
    smaller one's size: one batched matrix product, never [n, c, c', h·w].
    """
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    one, two = (resized(feature, size).flatten(2) for feature in (first, second))
    return one @ two.transpose(1, 2) / one.shape[2]


def resized(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, c, h, w] → [n, c, *size]: average pooling down, bilinear interpolation up."""
    height, width = feature.shape[2:]
    if (height, width) == size:
        return feature
    if height >= size[0] and width >= size[1]:
        return F.adaptive_avg_pool2d(feature, size)
    return F.interpolate(feature, size, mode="bilinear", align_corners=False)
