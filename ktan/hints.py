"""Hints on one scale, whatever the teacher's unit and bound are."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

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
    def of(cls, tap: AnswerTap, answers: Tensor) -> "HintScale":
        """`answers`: float32 [n, *tap.shape], n >= 1."""
        over = tuple(d for d in range(answers.ndim) if d != 1)
        centre = answers.mean(dim=over, keepdim=True)[0]
        scale = float((answers - centre).square().mean().sqrt())
        # Few answers may by chance vary less than their noise does; constant ones not at all.
        scale = max(scale, tap.noise_sd) or 1.0
        return cls(centre, scale, tap.noise_sd / scale)

    def standardise(self, hints: Tensor) -> Tensor:
        """[n, ...] in the tap's own unit → [n, ...] of zero mean and unit variance."""
        device = hints.device
        if device not in self._centres:
            self._centres[device] = self.centre.to(device, torch.float32)
        return (hints - self._centres[device]) / self.scale
