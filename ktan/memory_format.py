"""How samples and answers lie in memory, and how they get to a device and back."""

from collections.abc import Mapping

import torch
from torch import Tensor


def channels_last(samples: Tensor) -> Tensor:
    """Images [n, C, H, W] with the channels of a pixel side by side, as convolutions are fastest;
    the same values in the same shape. Samples of other ranks come back as they are."""
    if samples.ndim != 4:
        return samples
    return samples.contiguous(memory_format=torch.channels_last)


def to_device(samples: Tensor, device: torch.device) -> Tensor:
    """The same there; on the way to a GPU through pinned memory, and without waiting for it."""
    if device.type == "cuda" and samples.device.type == "cpu":
        return samples.pin_memory().to(device, non_blocking=True)
    return samples.to(device)


def to_host(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same on the CPU; from a GPU into pinned memory, waiting once for all of them."""
    found = {}
    for name, value in values.items():
        if value.device.type == "cuda":
            pinned = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            found[name] = pinned.copy_(value, non_blocking=True)
        else:
            found[name] = value.cpu()
    for device in {value.device for value in values.values() if value.device.type == "cuda"}:
        torch.cuda.current_stream(device).synchronize()
    return found
