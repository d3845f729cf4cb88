"""What earlier rounds leave to choose from."""

import torch
from torch import Tensor


def not_asked(candidates: int, already: Tensor | None) -> Tensor:
    """bool [candidates] on the CPU: True where `already` (int64 indices) does not name it."""
    free = torch.ones(candidates, dtype=torch.bool)
    if already is not None and len(already):
        already = already.cpu()
        if int(already.min()) < 0 or int(already.max()) >= candidates:
            raise ValueError(f"samples asked before are not all among {candidates} candidates")
        free[already] = False
    return free


def check_count(count: int, free: Tensor) -> None:
    """Raises ValueError unless `count` samples are left."""
    left = int(free.sum())
    if not 0 <= count <= left:
        raise ValueError(f"{count} samples wanted, {left} of {len(free)} are left")
