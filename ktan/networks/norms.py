"""The normalisation layers that a network may be built with."""

from typing import Literal, get_args

from torch import nn

from ktan.errors import UserError

Norm = Literal["batch", "group", "none"]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A layer for maps [n, channels, h, w].

    `group` (Wu & He 2018) sees one sample at a time, which DP-SGD and stacked training need: at
    least four channels a group, at most 32 groups.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        most = max(1, min(32, channels // 4))
        groups = next(groups for groups in range(most, 0, -1) if channels % groups == 0)
        return nn.GroupNorm(groups, channels)
    if norm == "none":
        return nn.Identity()
    raise UserError(f"norm is {norm!r}; it is one of {', '.join(get_args(Norm))}")
