"""Reads named points of a network by hooks, so that no network is ever edited.

A *path* is a module's path as torch prints it (`features.layer2`), and reads what the module puts
out; `PATH.input` reads what goes into it, such as the values before an activation. A module that
runs several times in one pass is read at its last.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ktan.errors import UserError


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

    def __call__(
        self, samples: Tensor, run: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [n, classes], and for each path what was there, with its gradient.

        `run` runs the network in another way than by calling it, and puts out the logits.
        """
        return self._run(lambda: (run or self.network)(samples))

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
    if torch.compiler.is_compiling() or value.is_inference():
        return None
    try:
        return value._version
    except RuntimeError:
        return None
