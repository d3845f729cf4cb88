"""Which network: a name, what goes in, how many classes come out, and its options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that is needed to build a network again; plain values, so that it fits a card."""

    name: str
    """A name of `NETWORKS`, `torchvision:NAME` or `module:attribute`."""
    input_shape: tuple[int, ...]
    """One sample: (C, H, W) or (d,)."""
    classes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """The network's own options, `norm` and `width` among them."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "options": dict(self.options),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "NetworkSpec":
        """The inverse of `to_json`."""
        return cls(
            name=str(content["name"]),
            input_shape=tuple(int(side) for side in content["input_shape"]),
            classes=int(content["classes"]),
            options=dict(content["options"]),
        )
