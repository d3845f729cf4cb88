"""What a student knows of a teacher: its taps with their published noise, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, get_args

from ktan.tap_kinds import TapKind

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AnswerTap", "TapKind", "Teacher"]


@dataclass(frozen=True)
class AnswerTap:
    """One tap of a teacher's answers, as the student sees it."""

    name: str
    kind: TapKind
    shape: tuple[int, ...]
    """Of one sample's answer, without the batch dimension."""
    noise_sd: float = 0.0
    """Published standard deviation of the noise on each coordinate, in the tap's own unit; 0 for
    a teacher that answers without noise (local, or trained by DP-SGD)."""
    temperature: float = 1.0
    """Softmax temperature of `probabilities`; 1 for the other kinds."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(TapKind):
            raise ValueError(f"tap {self.name!r}: unknown kind {self.kind!r}")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"tap {self.name!r}: {self.shape} is no shape")
        if not 0 <= self.noise_sd < float("inf"):
            raise ValueError(f"tap {self.name!r}: noise_sd {self.noise_sd} is not >= 0 and finite")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"tap {self.name!r}: temperature {self.temperature} is not > 0")

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dumps; `from_json` inverts it."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AnswerTap:
        return cls(**{**values, "shape": tuple(values["shape"])})


class Teacher(Protocol):
    """Anything that answers samples: a checkpoint in this process, or a service far away."""

    @property
    def taps(self) -> Mapping[str, AnswerTap]:
        """Tap name → what one answer of it is."""
        ...

    def answer(self, samples: Tensor) -> dict[str, Tensor]:
        """Answers to `samples` (uint8 or float32 [n, ...], not normalised).

        Returns tap name → float32 [n, *tap.shape], on the CPU.
        """
        ...
