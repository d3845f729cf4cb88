"""The order in which images lie in memory."""

import torch
from torch import Tensor


def channels_last(samples: Tensor) -> Tensor:
    """Images [n, C, H, W] with the channels of a pixel side by side, as convolutions are fastest;
    the same values in the same shape. Samples of other ranks come back as they are."""
    if samples.ndim != 4:
        return samples
    return samples.contiguous(memory_format=torch.channels_last)
