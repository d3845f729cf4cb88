"""Taps: named points of a network that are read by hooks, so that no network is ever edited.

A *path* is a module's path as torch prints it (`features.layer2`), and reads what the module puts
out; `PATH.input` reads what goes into it, such as the values before an activation. A module that
runs several times in one pass is read at its last.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ktan.errors import UserError

TapKind = Literal["logits", "probabilities", "hint"]

_FORMS = "logits, probabilities, probabilities@T=3, hint=PATH, hint=PATH:8 or hint=PATH:map"
_PROBABILITIES = re.compile(r"probabilities(?:@T=(?P<temperature>[0-9.eE+-]+))?")
_HINT = re.compile(r"hint=(?P<path>[^:=]+)(?::(?P<form>map|\d+))?")


@dataclass(frozen=True)
class Tap:
    """One thing that a teacher says of a sample."""

    name: str
    """`logits`, `probabilities`, `hint` for the first hint, `hint.PATH` for another."""
    kind: TapKind
    path: str | None = None
    """Of a hint: where in the network."""
    temperature: float | None = None
    """Of probabilities: softmax of logits / temperature."""
    dimensions: int | None = None
    """Of a hint: to how many dimensions it is reduced; all of them when None."""
    whole_map: bool = False
    """Of a hint: the map [c, h, w] itself instead of its mean over all positions."""
    shape: tuple[int, ...] = ()
    """Of one sample's answer; empty until `with_shape` has set it."""

    def with_shape(self, classes: int, shapes: Mapping[str, tuple[int, ...]]) -> "Tap":
        """The same tap with its shape, from what `tap_shapes` found at the hints' paths.

        Raises UserError when a hint is to be reduced to more dimensions than it has.
        """
        if self.kind != "hint":
            return replace(self, shape=(classes,))
        found = shapes[str(self.path)]
        if self.whole_map:
            return replace(self, shape=found)
        pooled = _pooled_size(found)
        if self.dimensions is not None and self.dimensions > pooled:
            raise UserError(
                f"tap {self.text}: {self.path} has {pooled} dimensions, fewer than "
                f"{self.dimensions}"
            )
        return replace(self, shape=(self.dimensions or pooled,))

    def read(self, logits: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """What one network says, before any reduction.

        `logits` [n, classes]; `features` as `TapReader` returns them. Logits come as they are,
        probabilities [n, classes], a hint [n, c], or [n, c, h, w] for a whole map.
        """
        if self.kind == "logits":
            return logits
        if self.kind == "probabilities":
            return torch.softmax(logits / (self.temperature or 1.0), dim=-1)
        feature = features[str(self.path)]
        return feature if self.whole_map else pool(feature)

    @property
    def text(self) -> str:
        """The form that `parse_tap` reads."""
        if self.kind == "probabilities" and self.temperature not in (None, 1.0):
            return f"probabilities@T={self.temperature:g}"
        if self.kind == "hint":
            form = "map" if self.whole_map else self.dimensions
            return f"hint={self.path}" + (f":{form}" if form else "")
        return self.kind

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "path": self.path,
            "temperature": self.temperature,
            "dimensions": self.dimensions,
            "whole_map": self.whole_map,
            "shape": list(self.shape),
        }

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
    match = _HINT.fullmatch(text)
    if not match:
        raise UserError(f"{text!r} is not a tap; a tap is {_FORMS}")
    form = match["form"]
    if form == "map":
        return Tap("hint", "hint", path=match["path"], whole_map=True)
    if form is not None and int(form) < 1:
        raise UserError(f"tap {text!r}: at least one dimension is needed")
    return Tap("hint", "hint", path=match["path"], dimensions=int(form) if form else None)


def parse_taps(texts: Sequence[str]) -> tuple[Tap, ...]:
    """Reads several; the first hint is called `hint`, the next ones `hint.PATH`.

    Raises UserError when there is none, or when two would have the same name.
    """
    taps: list[Tap] = []
    for text in texts:
        tap = parse_tap(text)
        if tap.kind == "hint" and any(other.kind == "hint" for other in taps):
            tap = replace(tap, name=f"hint.{tap.path}")
        if any(other.name == tap.name for other in taps) or (
            tap.kind == "hint" and any(other.path == tap.path for other in taps)
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


def _pooled_size(shape: tuple[int, ...]) -> int:
    """Of what `pool` makes of one sample's feature of this shape."""
    return int(pool(torch.empty(1, *shape, device="meta")).shape[-1])


def _version(value: Tensor) -> int | None:
    # Inference tensors and those inside a function transform or a compiler keep no version.
    if torch.compiler.is_compiling():
        return None
    try:
        return value._version
    except RuntimeError:
        return None
