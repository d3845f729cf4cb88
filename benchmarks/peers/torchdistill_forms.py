"""How torchdistill's losses want their tensors: by the names of hooked modules."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor


def hooked(values: Sequence[Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors as the outputs of modules `0`, `1`, …"""
    return {str(number): {"output": value} for number, value in enumerate(values)}


def pairs(count: int, weight: Callable[[int], float]) -> dict[str, dict[str, Any]]:
    """Which map of the student imitates which of the teacher: each its own number's."""
    return {
        f"pair{number}": {
            who: {"io": "output", "path": str(number)} for who in ("student", "teacher")
        }
        | {"weight": weight(number)}
        for number in range(count)
    }
