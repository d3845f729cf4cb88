"""Derived taps: what attention transfer, FSP and AB make of a network's maps.

The same function runs on the teacher's side, before a tap is bounded and perturbed, and on the
student's: what is compared is made in one way.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_map(feature: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """q(F) = mean_c F² brought to unit L2 norm (Zagoruyko & Komodakis 2017, eq. 1 and 2, p = 2).

    `feature`: float [n, c, h, w] → [n, h, w], or [n, *grid] by average pooling (interpolation
    where the grid is finer). A map of nothing but zeros stays zero. Needs no agreement on channels.
    """
    if feature.requires_grad and torch.is_grad_enabled():
        energy: Tensor = _Energy.apply(feature)
    else:
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


class _Energy(torch.autograd.Function):
    """mean_c F² of [n, c, h, w], float32 also from bf16, and its gradient 2·F·g / c.

    A student's attention in a fifth to a half of the time: one matrix-vector product over channels
    that lie side by side, and of the squares nothing is kept.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor) -> Tensor:
        ctx.save_for_backward(feature)
        count, channels, *size = feature.shape
        rows = feature.permute(0, 2, 3, 1).reshape(-1, channels)
        if feature.dtype in (torch.bfloat16, torch.float16):
            rows = rows.float()
        mean = rows.square() @ rows.new_full((channels,), 1 / channels)
        return mean.reshape(count, 1, *size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (feature,) = ctx.saved_tensors
        found: Tensor = feature * (gradient * (2 / feature.shape[1])).to(feature.dtype)
        return found
