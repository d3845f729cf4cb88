"""Taps: named points of a network that are read by hooks, so that no network is ever edited.

A *path* is a module's path as torch prints it (`features.layer2`), and reads what the module puts
out; `PATH.input` reads what goes into it, such as the values before an activation. A module that
runs several times in one pass is read at its last.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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


class TapReader:
    """Runs a network and hands out what its taps saw.

    Hooks stay on the network until `close` (or the end of a `with`); a network keeps working
    without the reader, and several readers and threads may share one.
    """

    def __init__(self, network: nn.Module, paths: Sequence[str]) -> None:
        self.network = network
        self.paths = tuple(dict.fromkeys(paths))
        # Each thread fills a store of its own: one server thread never sees another's samples.
        self._running = threading.local()
        self._handles: list[RemovableHandle] = []
        modules = dict(network.named_modules())
        for path in self.paths:
            if path in modules and path:
                self._handles.append(modules[path].register_forward_hook(self._output_hook(path)))
            elif path.endswith(".input") and path.removesuffix(".input") in modules:
                module = modules[path.removesuffix(".input")]
                self._handles.append(module.register_forward_pre_hook(self._input_hook(path)))
            else:
                self.close()
                known = ", ".join(name for name in modules if name)
                raise UserError(
                    f"the network has no module {path!r} to tap; it has {known} (each also with "
                    "`.input` behind it)"
                )

    def __call__(self, samples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [n, classes], and for each path what was there, with its gradient."""
        return self._run(lambda: self.network(samples))

    def functional(
        self, parameters: Mapping[str, Tensor], samples: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same with other parameters (and buffers), for `torch.func.vmap` and `grad`."""
        return self._run(
            lambda: torch.func.functional_call(self.network, dict(parameters), (samples,))
        )

    def close(self) -> None:
        """Takes the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> "TapReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, forward: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        store: dict[str, tuple[Tensor, int | None]] = {}
        self._running.store = store
        try:
            logits = forward()
        finally:
            self._running.store = None
        missing = [path for path in self.paths if path not in store]
        if missing:
            raise UserError(
                f"the network has {', '.join(missing)} but did not run it (or closed the tap)"
            )
        for path, (value, version) in store.items():
            if version is not None and value._version != version:
                raise UserError(
                    f"the network overwrites the output of {path} after the tap has read it; tap "
                    "the module around it"
                )
        return logits, {path: store[path][0] for path in self.paths}

    def _keep(self, path: str, value: object) -> None:
        store = getattr(self._running, "store", None)
        if store is None:
            return
        if not isinstance(value, Tensor):
            raise UserError(f"{path} puts out a {type(value).__name__}, not one tensor to tap")
        store[path] = (value, _version(value))

    def _output_hook(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: self._keep(path, output)

    def _input_hook(self, path: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, inputs: self._keep(path, inputs[0] if inputs else None)


def read_taps(network: nn.Module, paths: Sequence[str]) -> TapReader:
    """A reader of these paths; raises UserError that lists the modules for a path there is not."""
    return TapReader(network, paths)


def tap_shapes(
    network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Shape at each path for one sample, by one dry run of two zero samples in eval mode."""
    like = next(network.parameters(), torch.empty(0))
    samples = torch.zeros(2, *input_shape, device=like.device, dtype=like.dtype)
    training = {name: module.training for name, module in network.named_modules()}
    network.eval()
    try:
        with read_taps(network, paths) as reader, torch.no_grad():
            features = reader(samples)[1]
    finally:
        for name, module in network.named_modules():
            module.training = training[name]
    return {path: tuple(feature.shape[1:]) for path, feature in features.items()}


def _version(value: Tensor) -> int | None:
    # Inference tensors and those inside a function transform or a compiler keep no version.
    if torch.compiler.is_compiling():
        return None
    try:
        return value._version
    except RuntimeError:
        return None
