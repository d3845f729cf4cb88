"""The secret randomness of DP-SGD: who is sampled, in which views, and the noise.

The words come from `privacy.secret_stream`, keyed by the operating system for each training
process: not seedable, not repeatable, not logged. A resumed run has new samples and new noise.
(torch's CPU generator keeps 32 bits of its seed, which could be searched.)

The Gaussian noise is floating point, here as in Opacus: a stated gap
(docs/privacy/threat-model.md).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from privacy.secret_stream import SecretStream


class SecretNoise:
    """Independent draws from fresh secret entropy."""

    def __init__(self) -> None:
        self._stream = SecretStream()

    def sampled(self, count: int, rate: float) -> npt.NDArray[np.int64]:
        """Poisson sampling: the positions below `count` that come up, each with `rate`."""
        return np.flatnonzero(self._uniform(count) < rate).astype(np.int64)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """float32 draws, uniform in [0, 1)."""
        drawn = self._uniform(int(np.prod(shape, dtype=np.int64)))
        # To 24 bits first: rounded to the nearest float32, some would be 1.
        return torch.from_numpy(np.floor(drawn * 2.0**24) * 2.0**-24).float().reshape(shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """float32 standard normal draws (Box & Muller 1958, in float64)."""
        count = int(np.prod(shape, dtype=np.int64))
        pairs = -(-count // 2)
        # 1 - u lies in (0, 1]: the logarithm is finite.
        radius = np.sqrt(-2.0 * np.log1p(-self._uniform(pairs)))
        angle = 2.0 * np.pi * self._uniform(pairs)
        drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return torch.from_numpy(drawn.astype(np.float32)).reshape(shape)

    def _uniform(self, count: int) -> npt.NDArray[np.float64]:
        """Uniform multiples of 2⁻⁵³ in [0, 1)."""
        return (self._stream.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
