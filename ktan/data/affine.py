"""Affine views of whole batches of images."""

import torch
import torch.nn.functional as F
from torch import Tensor


def affine_views(
    samples: Tensor,
    *,
    angle: Tensor,
    shear: Tensor,
    width: Tensor,
    height: Tensor,
    across: Tensor,
    down: Tensor,
) -> Tensor:
    """Each of `samples` [B, C, H, W] under a map of its own; uint8 or float, as given.

    All float32 [B]. `angle`: radians; `shear`: shift per height; `width`, `height`: scales, 1 for
    none; `across`, `down`: shifts, in halves of a side. What was outside the image is 0.
    """
    cos, sin = angle.cos(), angle.sin()
    # Rows of the map from the view's coordinates to the image's.
    theta = torch.stack(
        [
            torch.stack([cos / width + shear * sin, -sin / width + shear * cos, across], dim=1),
            torch.stack([sin / height, cos / height, down], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(samples.shape), align_corners=False)
    views = F.grid_sample(samples.to(grid.dtype), grid, align_corners=False)
    if samples.dtype == torch.uint8:
        views.round_()
    return views.to(samples.dtype)
