"""The promise, as a value: what is guaranteed, to whom, and in respect of what.

Proof and limits: docs/privacy/promise.md and docs/privacy/threat-model.md.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from privacy import canonical_json
from privacy.errors import InvalidPlan


class Adjacency(StrEnum):
    """Which two data sets must look alike.

    `REPLACE_ONE`: the content behind one fixed unit id is replaced; the ids stay.
    `ADD_REMOVE`: one unit is added or removed, and with it the number of units.

    Every number says which of the two it is of; `Promise.under` converts where that is sound.
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
        # As one writes it: 1e-6, not 1e-06.
        delta = f"{self.delta:g}".replace("e-0", "e-")
        return (
            f"ε = {self.epsilon:g} at δ = {delta}, {self.adjacency.value}, "
            f"for any one {self.unit}{by}: all answers to all clients together"
        )

    def under(self, adjacency: Adjacency) -> "Promise":
        """What this promise implies under `adjacency`.

        A replacement is a removal and an addition: (ε, δ) under add/remove gives (2ε, (1 + e^ε)·δ)
        under replace-one, by the definition applied twice (docs/privacy/promise.md, "Between the
        adjacencies"). Nothing follows from replace-one for data sets of different size: a
        mechanism may publish N. Raises InvalidPlan for that, and where the δ would be 1 or more.

        The enforcing path converts nothing: both adjacencies of a DP-SGD run have their own proof
        (privacy/composition.py), and their own, smaller, numbers.
        """
        if adjacency is self.adjacency:
            return self
        if adjacency is Adjacency.ADD_REMOVE:
            raise InvalidPlan(
                "nothing follows from a replace-one promise under add/remove; account for the "
                "mechanism under add/remove instead"
            )
        # Past e^700 δ is 1 in any case, and an exponential would overflow.
        delta = (1.0 + math.exp(min(self.epsilon, 700.0))) * self.delta
        if delta >= 1.0:
            raise InvalidPlan(
                f"group privacy gives δ = {delta:.3g} under replace-one, which promises nothing; "
                f"state the add/remove promise at a smaller δ"
            )
        return replace(self, epsilon=2.0 * self.epsilon, delta=delta, adjacency=adjacency)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back without loss."""
        return asdict(self) | {"adjacency": self.adjacency.value}

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON text of it (canonical_json.py); it stands in every receipt."""
        return canonical_json.encode(self.to_json()).decode()

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
