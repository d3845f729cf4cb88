"""Hints on one scale, whatever the teacher's unit and bound are."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ktan.data_parts import Rows
from ktan.parts import mean_over
from ktan.teacher import AnswerTap


@dataclass(frozen=True)
class HintScale:
    """Centre and scale of one hint over the answers at hand; post-processing, free.

    Standardised hints have mean 0 in each coordinate (channel, for a map) and an overall variance
    of 1 with the noise in it, so that loss weights and connectors need not know the unit. A hint
    of nothing but noise then weighs no more than a clean one.
    """

    centre: Tensor
    """float32 [m] or [c, 1, 1]."""
    scale: float
    """In the hint's own unit, > 0."""
    noise_sd: float
    """Published noise sd of a standardised coordinate, in [0, 1]."""
    _centres: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """The centre on each device that asked: a copy from the host in every step would stall it."""

    @classmethod
    def of(
        cls,
        tap: AnswerTap,
        *answers: Rows,
        seen: Callable[..., Tensor] = lambda read: read,
    ) -> "HintScale":
        """`answers`: float32 [n, *tap.shape], n >= 1; read in parts, and never all in memory.

        `seen`: what is to be measured, float32 [b, m] or [b, c, h, w], made of a part of each of
        `answers`; of one it is that itself. Mean and variance are those of each part in float32,
        and over the parts in float64.
        """
        centre = mean_over(lambda *read: _centre(seen(*read)), *answers)
        variance = mean_over(lambda *read: (seen(*read) - centre).square_().mean(), *answers)
        # Few answers may by chance vary less than their noise does; constant ones not at all.
        scale = max(float(variance.sqrt()), tap.noise_sd) or 1.0
        return cls(centre, scale, tap.noise_sd / scale)

    def standardise(self, hints: Tensor) -> Tensor:
        """[n, ...] in the tap's own unit → [n, ...] of zero mean and unit variance."""
        device = hints.device
        if device not in self._centres:
            self._centres[device] = self.centre.to(device, torch.float32)
        return (hints - self._centres[device]) / self.scale


def _centre(part: Tensor) -> Tensor:
    over = tuple(d for d in range(part.ndim) if d != 1)
    return part.mean(dim=over, keepdim=True)[0]
