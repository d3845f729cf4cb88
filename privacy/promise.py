"""The promise, as a value: what is guaranteed, to whom, and in respect of what.

Proof and limits: docs/privacy/promise.md and docs/privacy/threat-model.md.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Adjacency(StrEnum):
    """Which two data sets must look alike.

    `REPLACE_ONE`: the content behind one fixed unit id is replaced; the ids stay.
    `ADD_REMOVE`: one unit is added or removed. A mechanism that is ε under add/remove is at most
    2ε, at δ·(1 + e^ε), under replace-one; there is no general way back.
    """

    REPLACE_ONE = "replace-one"
    ADD_REMOVE = "add/remove"


@dataclass(frozen=True)
class Promise:
    """(ε, δ)-differential privacy of everything that leaves the service.

    epsilon: of the whole interaction, all clients together, at `delta`.
    delta: the whole δ, the share of the noise generator's error included.
    adjacency: which replacement is meant.
    unit: what adjacency replaces, as a noun: "record", "person", "account".
    mode: "ensemble", "dp-sgd" or "single"; None where it holds for whatever mode is served.
    """

    epsilon: float
    delta: float
    adjacency: Adjacency
    unit: str
    mode: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ValueError(f"epsilon must be finite and at least 0, not {self.epsilon}")
        if not 0 <= self.delta < 1:
            raise ValueError(f"delta must lie in [0, 1), not {self.delta}")
        if not self.unit:
            raise ValueError("unit must name what is protected, for example 'record'")
        object.__setattr__(self, "adjacency", Adjacency(self.adjacency))

    def sentence(self) -> str:
        """One line for a screen: ε, δ, adjacency, unit, and the mode when there is one."""
        by = f", mode {self.mode}" if self.mode else ""
        return (
            f"ε = {self.epsilon:g} at δ = {self.delta:g}, {self.adjacency.value}, "
            f"for any one {self.unit}{by}: all answers to all clients together"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back without loss."""
        return asdict(self) | {"adjacency": self.adjacency.value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Promise":
        """Raises ValueError or KeyError on anything that `to_json` does not write."""
        return cls(
            epsilon=float(value["epsilon"]),
            delta=float(value["delta"]),
            adjacency=Adjacency(value["adjacency"]),
            unit=str(value["unit"]),
            mode=None if value["mode"] is None else str(value["mode"]),
        )
