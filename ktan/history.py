"""The curves of a run: named values by step."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class History:
    """Curve name → its (step, value) points, steps ascending."""

    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, float(value)))

    def last(self, name: str) -> float:
        """The last value of a curve. Raises KeyError for an unknown one."""
        return self.curves[name][-1][1]

    def to_json(self) -> dict[str, list[tuple[int, float]]]:
        return self.curves

    @classmethod
    def from_json(cls, curves: Mapping[str, list[list[float]]]) -> "History":
        return cls(
            {
                name: [(int(step), float(value)) for step, value in points]
                for name, points in curves.items()
            }
        )
