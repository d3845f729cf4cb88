"""Taps: what a teacher says of a sample, and how the command line names it.

Most are made of what was read at a *path*, or two, in the network (`ktan.tap_reader`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ktan.derivation import attention_map, flow_products, sign_pattern
from ktan.errors import UserError
from ktan.tap_kinds import TapKind

_FORMS = (
    "logits, probabilities, probabilities@T=3, hint=PATH, hint=PATH:8, hint=PATH:map, "
    "tsl=PATH:64, tsl=PATH:64x8x8, attention=PATH, attention=PATH:4 (a grid of 4 by 4), "
    "signs=PATH, products=PATH,PATH or products=PATH,PATH:8"
)
_PROBABILITIES = re.compile(r"probabilities(?:@T=(?P<temperature>[0-9.eE+-]+))?")
_OF_A_PATH = re.compile(
    r"(?P<kind>hint|tsl|attention|signs|products)=(?P<path>[^:=,]+)(?:,(?P<second>[^:=,]+))?"
    r"(?::(?P<form>map|\d+(?:x\d+x\d+)?))?"
)


@dataclass(frozen=True)
class Tap:
    """One thing that a teacher says of a sample."""

    name: str
    """The kind's name for the first tap of a kind (`hint`), `KIND.PATH` for another."""
    kind: TapKind
    path: str | None = None
    """Where in the network; None for logits and probabilities."""
    temperature: float | None = None
    """Of probabilities: softmax of logits / temperature."""
    dimensions: int | None = None
    """Of a hint or of products: to how many dimensions they are reduced; all when None."""
    whole_map: bool = False
    """Of a hint: the map [c, h, w] itself instead of its mean over all positions."""
    shape: tuple[int, ...] = ()
    """Of one sample's answer; empty until `with_shape` has set it. A TSL's is what was asked for,
    [c, h, w] or [c]; empty for a student's that is not known yet (`ktan.teachers.live`)."""
    second: str | None = None
    """Of products: the path of the second map."""
    grid: int | None = None
    """Of attention: the side of the grid to which it is averaged; the map's own when None."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The points of the network that the tap reads."""
        return tuple(path for path in (self.path, self.second) if path is not None)

    @property
    def is_vector(self) -> bool:
        """Whether an answer is a vector without a frame of its own, which a rotation may align."""
        if self.kind == "products":
            return self.dimensions is not None
        if self.kind == "tsl":
            return len(self.shape) == 1
        return self.kind == "hint" and not self.whole_map

    def with_shape(self, classes: int, shapes: Mapping[str, tuple[int, ...]]) -> "Tap":
        """The same tap with its shape, from what `tap_shapes` found at its paths.

        Raises UserError when it is to be reduced to more dimensions than it has, or derived from
        what is no map.
        """
        if not self.paths:
            return replace(self, shape=(classes,))
        for path in self.paths:
            if self.kind != "hint" and len(shapes[path]) != 3:
                raise UserError(
                    f"tap {self.text}: {path} puts out {list(shapes[path])}, and {self.kind} are "
                    "made of maps [c, h, w]; name a module that puts one out"
                )
        if self.kind == "tsl":
            return self
        blank = {path: torch.empty(1, *shapes[path], device="meta") for path in self.paths}
        found = tuple(self.read(torch.empty(1, classes, device="meta"), blank).shape[1:])
        if self.dimensions is None:
            return replace(self, shape=found)
        if self.dimensions > found[0]:
            raise UserError(
                f"tap {self.text}: it has {found[0]} dimensions, fewer than {self.dimensions}"
            )
        return replace(self, shape=(self.dimensions,))

    def read(
        self,
        logits: Tensor,
        features: Mapping[str, Tensor],
        layer: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """What one network says, before any reduction.

        `logits` [n, classes]; `features` as `TapReader` returns them. Logits come as they are,
        probabilities [n, classes], a hint [n, c] or [n, c, h, w] for a whole map, attention
        [n, h, w], signs [n, c, h, w], products [n, c, c'] or, where they are to be reduced, the
        same as vectors [n, c·c']; a TSL what its trained `layer` makes of the map.
        """
        if self.kind == "logits":
            return logits
        if self.kind == "probabilities":
            return torch.softmax(logits / (self.temperature or 1.0), dim=-1)
        feature = features[str(self.path)]
        if self.kind == "tsl":
            if layer is None:
                raise ValueError(f"tap {self.text} is read through its trained layer")
            return layer(feature)
        if self.kind == "attention":
            return attention_map(feature, None if self.grid is None else (self.grid, self.grid))
        if self.kind == "signs":
            return sign_pattern(feature)
        if self.kind == "products":
            products = flow_products(feature, features[str(self.second)])
            return products if self.dimensions is None else products.flatten(1)
        return feature if self.whole_map else pool(feature)

    @property
    def text(self) -> str:
        """The form that `parse_tap` reads."""
        if self.kind == "probabilities" and self.temperature not in (None, 1.0):
            return f"probabilities@T={self.temperature:g}"
        if not self.paths:
            return self.kind
        form = "map" if self.whole_map else (self.dimensions or self.grid)
        if self.kind == "tsl":
            form = "x".join(map(str, self.shape))
        return f"{self.kind}={','.join(self.paths)}" + (f":{form}" if form else "")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Tap":
        """The inverse of `to_json`."""
        return cls(**{**content, "shape": tuple(content["shape"])})


def parse_tap(text: str) -> Tap:
    """Reads one tap as the command line has it; raises UserError for any other form."""
    if text == "logits":
        return Tap("logits", "logits")
    match = _PROBABILITIES.fullmatch(text)
    if match:
        try:
            temperature = float(match["temperature"] or 1)
        except ValueError:
            temperature = 0.0
        if not 0 < temperature < float("inf"):
            raise UserError(f"tap {text!r}: the temperature must be a positive number")
        return Tap("probabilities", "probabilities", temperature=temperature)
    match = _OF_A_PATH.fullmatch(text)
    if not match:
        raise UserError(f"{text!r} is not a tap; a tap is {_FORMS}")
    kind: TapKind = match["kind"]  # type: ignore[assignment]
    path, second, form = match["path"], match["second"], match["form"]
    if (second is not None) != (kind == "products"):
        raise UserError(f"tap {text!r}: products are of two paths, every other tap of one")
    sizes = () if form in (None, "map") else tuple(map(int, form.split("x")))
    if sizes and min(sizes) < 1:
        raise UserError(f"tap {text!r}: at least one dimension is needed")
    if kind == "tsl" and not sizes:
        raise UserError(
            f"tap {text!r}: a TSL puts out the student's shape, tsl=PATH:64x8x8 for its map or "
            "tsl=PATH:64 for the mean over it; name that shape"
        )
    if (
        (kind == "signs" and form is not None)
        or (kind != "hint" and form == "map")
        or (kind != "tsl" and len(sizes) > 1)
    ):
        raise UserError(f"{text!r} is not a tap; a tap is {_FORMS}")
    if kind == "tsl":
        return Tap(kind, kind, path=path, shape=sizes)
    if form == "map":
        return Tap(kind, kind, path=path, whole_map=True)
    size = sizes[0] if sizes else None
    if kind == "attention":
        return Tap(kind, kind, path=path, grid=size)
    return Tap(kind, kind, path=path, second=second, dimensions=size)


def parse_taps(texts: Sequence[str]) -> tuple[Tap, ...]:
    """Reads several; the first hint is called `hint`, the next ones `hint.PATH`; so all kinds.

    Raises UserError when there is none, or when two would have the same name.
    """
    taps: list[Tap] = []
    for text in texts:
        tap = parse_tap(text)
        if tap.paths and any(other.kind == tap.kind for other in taps):
            tap = replace(tap, name=f"{tap.kind}.{'-'.join(tap.paths)}")
        if any(
            other.name == tap.name or (other.kind, other.paths) == (tap.kind, tap.paths)
            for other in taps
        ):
            raise UserError(f"the tap {text!r} is there twice; each may be named once")
        taps.append(tap)
    if not taps:
        raise UserError(f"at least one tap is needed: {_FORMS}")
    return tuple(taps)


def pool(feature: Tensor) -> Tensor:
    """[n, c] of a map [n, c, h, w] (its mean over positions), of tokens [n, t, c], or as it is."""
    if feature.ndim == 4:
        return feature.mean(dim=(2, 3))
    if feature.ndim == 3:
        return feature.mean(dim=1)
    return feature
