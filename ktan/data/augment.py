"""Random views of whole batches, on the device that holds them."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.data.affine import affine_views
from ktan.data.randaugment import DRAWS, strong_views
from ktan.errors import UserError

AugmentName = Literal["none", "shift", "crop-flip", "affine", "strong"]


@dataclass(frozen=True)
class Augment:
    """One way of distorting images; dtype, shape and device stay as they are.

    - `none`: the batch itself.
    - `shift`: up to an eighth of each side, the uncovered edge filled with 0.
    - `crop-flip`: `shift`, and half of the images mirrored (the CIFAR recipe: pad 4, crop, flip).
    - `affine`: rotation up to 0.2, scale 0.15 of each axis, shear 0.2, shift an eighth.
    - `strong`: affine, recoloured and with a square cut out (`ktan.data.randaugment`); uint8 only.

    Tables [B, d] have no such views; only `none` takes them.
    """

    name: AugmentName = "none"

    def __post_init__(self) -> None:
        if self.name not in get_args(AugmentName):
            raise UserError(
                f"no augmentation is called {self.name!r}; there are "
                f"{', '.join(get_args(AugmentName))}"
            )

    @property
    def draws(self) -> int:
        """Uniform numbers that a view of one image is made of."""
        return {"none": 0, "shift": 3, "crop-flip": 3, "affine": 6, "strong": DRAWS}[self.name]

    def __call__(
        self,
        samples: Tensor,
        generator: torch.Generator,
        among: int | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """A random view of each of `samples` [B, C, H, W], uint8 or float, in its own unit.

        `generator` lives on the samples' device or on the CPU. `places` int64 [B], where the
        samples stand `among` so many, of which others are seen elsewhere: all views are drawn.
        """
        if self.name == "none":
            return samples
        count = len(samples) if among is None else among
        chance = torch.rand(self.draws, count, generator=generator, device=generator.device)
        chance = chance.to(samples.device, non_blocking=True)
        return self.views(samples, chance if places is None else chance[:, places])

    def views(self, samples: Tensor, chance: Tensor) -> Tensor:
        """The views that `chance` says, float32 [draws, B], uniform in [0, 1)."""
        if self.name == "none":
            return samples
        if samples.ndim != 4:
            raise UserError(
                f"augmentation {self.name!r} needs images, not samples of shape "
                f"{list(samples.shape[1:])}; use none"
            )
        if self.name == "strong":
            if samples.dtype != torch.uint8:
                raise UserError(
                    f"augmentation 'strong' needs uint8 images, not {samples.dtype}; use affine"
                )
            return strong_views(samples, chance)
        if self.name == "affine":
            return _affine(samples, chance)
        return _shifted(samples, chance, mirror=self.name == "crop-flip")


def _shifted(samples: Tensor, chance: Tensor, *, mirror: bool) -> Tensor:
    count, _, height, width = samples.shape
    down, across = max(1, height // 8), max(1, width // 8)
    top = (chance[0] * (2 * down + 1)).long()
    left = (chance[1] * (2 * across + 1)).long()
    if mirror:
        samples = torch.where(chance[2][:, None, None, None] < 0.5, samples.flip(3), samples)
    padded = F.pad(samples, (across, across, down, down))
    # All windows as one strided view, of which each image takes one: four times faster on a CPU
    # than indexing pixels.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=samples.device), :, top, left]


def _affine(samples: Tensor, chance: Tensor) -> Tensor:
    chance = 2 * chance - 1
    return affine_views(
        samples,
        angle=0.2 * chance[0],
        shear=0.2 * chance[1],
        width=1 + 0.15 * chance[2],
        height=1 + 0.15 * chance[3],
        across=0.25 * chance[4],  # the image runs from -1 to 1
        down=0.25 * chance[5],
    )
