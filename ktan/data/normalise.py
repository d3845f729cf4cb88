"""Bringing samples to the range that networks like, by public numbers only."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ktan.errors import UserError


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std, per channel of an image or column of a table.

    `mean` and `std` are in the sample's own unit: 0 to 255 for uint8 images. They come from
    public samples or are constants, never from private records: the figures published for a
    benchmark are those of its training part, which is the private one here.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise UserError(f"normalisation: {len(self.mean)} means and {len(self.std)} deviations")
        if not all(math.isfinite(value) for value in self.mean):
            raise UserError("normalisation: a mean is not finite")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            raise UserError("normalisation: a standard deviation is not positive and finite")

    @classmethod
    def neutral(cls, samples: Tensor) -> "Normalisation":
        """Constants that depend on no data: images [n, C, H, W] to [-1, 1], tables as they are."""
        if samples.ndim == 4:
            return cls((127.5,) * samples.shape[1], (127.5,) * samples.shape[1])
        return cls((0.0,) * samples.shape[1], (1.0,) * samples.shape[1])

    @classmethod
    def of_public(cls, samples: Tensor) -> "Normalisation":
        """Mean and standard deviation of *public* samples [n, C, H, W] or [n, d].

        A channel or column that never changes keeps its scale.
        """
        if len(samples) == 0:
            raise UserError("normalisation: there are no public samples to measure")
        axes = (0, *range(2, samples.ndim))
        values = samples.to(torch.float64)
        mean, std = values.mean(axes), values.std(axes, correction=0)
        std = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std))
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, samples: Tensor) -> Tensor:
        """float32 of the same shape and device; [..., C, H, W] images or [..., d] tables."""
        mean, scale = _constants(self, samples.device)
        if samples.ndim >= 3:
            mean, scale = mean[:, None, None], scale[:, None, None]
        return (samples.to(torch.float32) - mean) * scale

    def to_json(self) -> dict[str, Any]:
        """`{"mean": [...], "std": [...]}`."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Normalisation":
        """The inverse of `to_json`."""
        return cls(tuple(map(float, content["mean"])), tuple(map(float, content["std"])))


@lru_cache(maxsize=64)
def _constants(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    # Cached on the device: a copy from the host in every step would stall the stream.
    # Outside inference mode: what is cached there could not be used in training later.
    with torch.inference_mode(False):
        mean = torch.tensor(normalisation.mean, dtype=torch.float32, device=device)
        scale = 1 / torch.tensor(normalisation.std, dtype=torch.float64)
        return mean, scale.to(device, torch.float32)
