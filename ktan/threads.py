"""How many cores a computation on the CPU is worth."""

import torch

_WORTH_SHARING = 5e8


def suit_threads(multiply_adds: float) -> None:
    """Keeps torch to one core for steps of so few multiply-adds; leaves it as it is for others.

    On small tensors threads wait for each other longer than they work, and most of all where
    another process wants the cores, too.
    """
    if multiply_adds < _WORTH_SHARING:
        torch.set_num_threads(1)
