"""Strong views: RandAugment (Cubuk et al. 2020) as FixMatch uses it, for a whole batch at once.

FixMatch draws two distortions of each image, of random strength, and cuts a square out. Here the
geometric ones form one affine map, each part of which half of the images keep, and two of the
others are drawn for each image. Those follow in a fixed order, and an image that did not draw one
passes it with the strength that changes nothing: no loop over images, no branch on the device.
Mirroring is none of them, since it makes another class of a digit or a letter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.data.affine import affine_views

DRAWS = 19
"""Uniform numbers that the views of one image take."""

_OPERATIONS = (
    "nothing", "sharpness", "saturation", "contrast", "stretch", "brightness", "solarise",
    "posterise",
)  # fmt: skip


def strong_views(samples: Tensor, chance: Tensor) -> Tensor:
    """A strong view of each of `samples`, uint8 [B, C, H, W]; RGB when C is 3.

    `chance`: float32 [DRAWS, B], uniform in [0, 1), on the samples' device.
    """
    views = _warped(samples, chance[:12]).float() / 255
    views = _recoloured(views, chance[12:14], chance[14:16])
    views = _cut(views, chance[16:19])
    return (255 * views).round_().clamp_(0, 255).to(torch.uint8)


def _warped(samples: Tensor, chance: Tensor) -> Tensor:
    """Rotation up to 0.5, shear 0.3, scale 0.25 of each axis, shift an eighth of each side."""
    strength = torch.where(chance[:6] < 0.5, 0.0, 2 * chance[6:] - 1)
    return affine_views(
        samples,
        angle=0.5 * strength[0],
        shear=0.3 * strength[1],
        width=1 + 0.25 * strength[2],
        height=1 + 0.25 * strength[3],
        across=0.25 * strength[4],  # the image runs from -1 to 1
        down=0.25 * strength[5],
    )


def _recoloured(images: Tensor, choice: Tensor, strength: Tensor) -> Tensor:
    """Two of `_OPERATIONS` for each image, in that order; float32 in [0, 1]."""
    drawn = (choice * len(_OPERATIONS)).long()

    def amount(name: str, neutral: float, low: float, high: float) -> Tensor:
        """[B, 1, 1, 1]: within [low, high) where `name` was drawn, `neutral` elsewhere."""
        hit = drawn == _OPERATIONS.index(name)
        within = low + (high - low) * strength
        values = torch.where(hit[1], within[1], torch.full_like(within[1], neutral))
        return torch.where(hit[0], within[0], values)[:, None, None, None]

    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = (images + amount("sharpness", 0, -1, 1.5) * (images - blurred)).clamp(0, 1)
    grey = _grey(images)
    images = (grey + amount("saturation", 1, 0, 2) * (images - grey)).clamp(0, 1)
    mean = _grey(images).mean(dim=(2, 3), keepdim=True)
    images = (mean + amount("contrast", 1, 0.3, 1.7) * (images - mean)).clamp(0, 1)
    # From darkest to brightest, a channel fills the range: PIL's autocontrast, in part.
    lowest, highest = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    stretched = (images - lowest) / (highest - lowest).clamp(min=1 / 255)
    images = images + amount("stretch", 0, 0.5, 1) * (stretched - images)
    images = (amount("brightness", 1, 0.3, 1.7) * images).clamp(0, 1)
    images = torch.where(images >= amount("solarise", 2, 0.5, 1), 1 - images, images)
    # 3 to 6 of 8 bits are kept.
    size = 2 ** amount("posterise", 0, 2, 6).floor()
    levels = (255 * images).round()  # or a level would fall below its own multiple
    return (levels / size).floor() * size / 255


def _grey(images: Tensor) -> Tensor:
    """Luminance [B, 1, H, W] (ITU-R BT.601) of RGB; the channels' mean otherwise."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def _cut(images: Tensor, chance: Tensor) -> Tensor:
    """Cutout (DeVries & Taylor 2017): a square of up to half a side, filled with the mean."""
    height, width = images.shape[2:]
    reach = chance[0] * min(height, width) / 4
    rows = torch.arange(height, device=images.device) + 0.5
    columns = torch.arange(width, device=images.device) + 0.5
    within = (rows - height * chance[1, :, None]).abs() < reach[:, None]
    beside = (columns - width * chance[2, :, None]).abs() < reach[:, None]
    hole = (within[:, :, None] & beside[:, None, :])[:, None]
    return torch.where(hole, images.mean(dim=(2, 3), keepdim=True), images)
