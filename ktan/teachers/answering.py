"""A frozen network made ready to answer fast: less to compute, the same answers.

Nothing runs behind the last layer that is read; batch norms are folded into the convolutions
before them (Jacob et al. 2018, section 3.2), and weights lie in the type in which they multiply.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ktan.precision import Precision, autocast, half_type
from ktan.tap_reader import read_taps

_SAMPLES = 2
_EXACT = 1e-9
"""Relative difference, in float64, up to which a folded network is the one that it was."""
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class AnsweringNetwork:
    """Runs one network in evaluation mode, and hands out what is read of it."""

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        paths: Sequence[str],
        *,
        logits: bool,
        precision: Precision,
        as_it_is: bool = False,
    ) -> None:
        """`paths`: what is read; `logits`: whether the network's output is read, too.

        `as_it_is`: runs the network itself, whose weights may change, instead of a folded copy.
        """
        self._device = next(network.parameters(), torch.empty(0)).device
        self._precision = precision
        if not as_it_is:
            network = folded(network, input_shape, paths)
            _lower(network, half_type(self._device, precision))
        last, runs = _last_read(network, input_shape, paths)
        self._cut = _Cut(network)
        # The reader's hooks stand before the one that stops, and see what it stops at.
        self._reader = read_taps(self._cut, [f"network.{path}" for path in paths])
        if paths and not logits:
            self._cut.stop_at(last, runs)

    def __call__(self, samples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """float [n, ...] (normalised) → logits [n, classes], [n, 0] where they are not read, and
        path → [n, ...], as the network puts them out."""
        with torch.inference_mode(), autocast(self._device, self._precision):
            logits, features = self._reader(samples)
        return logits, {path.removeprefix("network."): value for path, value in features.items()}

    def close(self) -> None:
        """Takes the hooks off the network."""
        self._reader.close()
        self._cut.stop_at(None, 0)


class _Reached(Exception):
    """No error: it ends a forward pass early."""


class _Cut(nn.Module):
    """A network that may stop early."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._runs = self._left = 0
        self._handle: Any = None

    def stop_at(self, path: str | None, runs: int) -> None:
        """Stops when `path` has run for the `runs`-th time; None: runs to its end."""
        if self._handle is not None:
            self._handle.remove()
        self._runs, self._handle = runs, None
        if path is not None:
            self._handle = _hook(self.network, path, self._count)

    def forward(self, samples: Tensor) -> Tensor:
        self._left = self._runs
        try:
            found: Tensor = self.network(samples)
        except _Reached:
            return samples.new_empty(len(samples), 0)
        return found

    def _count(self, *_: Any) -> None:
        self._left -= 1
        if not self._left:
            raise _Reached


def folded(network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]) -> nn.Module:
    """A copy with every batch norm folded that stands alone behind a convolution.

    What is read at `paths` stays what it was. Which norm stands behind which convolution is seen
    in a run; whether nobody else looked at what lay between them, in the results, which must be
    equal. Where they are not, nothing is folded.
    """
    plain = copy.deepcopy(network).eval()
    pairs = _pairs(plain, input_shape, paths)
    if not pairs:
        return plain
    exact = copy.deepcopy(plain).double()
    found = copy.deepcopy(exact)
    for before, norm in pairs:
        conv, behind = found.get_submodule(before), found.get_submodule(norm)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(behind, nn.BatchNorm2d)
        found.set_submodule(before, fuse_conv_bn_eval(conv, behind))
        found.set_submodule(norm, nn.Identity())
    if not _equal(exact, found, input_shape, paths):
        return plain
    return found.to(next(plain.parameters()).dtype).requires_grad_(False)


def _pairs(
    network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]
) -> list[tuple[str, str]]:
    """Paths of a convolution and of the norm that takes what it puts out; both run once."""
    put_out: dict[int, tuple[str, Tensor]] = {}
    found: dict[str, str] = {}
    runs: dict[str, int] = {}

    def convolved(path: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            runs[path] = runs.get(path, 0) + 1
            put_out[id(output)] = (path, output)

        return hook

    def normed(path: str) -> Any:
        def hook(_module: nn.Module, inputs: Any) -> None:
            runs[path] = runs.get(path, 0) + 1
            source = put_out.get(id(inputs[0])) if inputs else None
            if source is not None:
                found[path] = source[0]

        return hook

    handles = []
    for path, module in network.named_modules():
        if type(module) is nn.Conv2d and not parametrize.is_parametrized(module):
            handles.append(module.register_forward_hook(convolved(path)))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(normed(path)))
    _run(network, input_shape, ())
    for handle in handles:
        handle.remove()
    read = set(paths)
    return [
        (before, norm)
        for norm, before in found.items()
        if runs[before] == runs[norm] == 1 and not read & {before, f"{norm}.input"}
    ]


def _equal(
    one: nn.Module, other: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]
) -> bool:
    """Whether both, in float64, put out the same everywhere that is read."""
    results = [_run(network, input_shape, paths) for network in (one, other)]
    return all(
        float((a - b).abs().max()) <= _EXACT * (1 + float(a.abs().max()))
        for a, b in zip(*results, strict=True)
    )


@torch.no_grad()
def _run(network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]) -> list[Tensor]:
    """Logits, and what is read, of a few random samples."""
    like = next(network.parameters(), torch.empty(0))
    drawn = torch.randn(_SAMPLES, *input_shape, generator=torch.Generator().manual_seed(0))
    with read_taps(network, paths) as reader:
        logits, features = reader(drawn.to(like.device, like.dtype))
    return [logits, *features.values()]


def _last_read(
    network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]
) -> tuple[str | None, int]:
    """The path that is read last, and how many times it runs until then."""
    seen: list[str] = []
    handles = [_hook(network, path, lambda *_, path=path: seen.append(path)) for path in paths]
    _run(network, input_shape, ())
    for handle in handles:
        handle.remove()
    return (seen[-1], seen.count(seen[-1])) if seen else (None, 0)


def _hook(network: nn.Module, path: str, call: Any) -> Any:
    """`call` where a tap of this path is read: `PATH.input` before the module, else behind it."""
    modules = dict(network.named_modules())
    if path in modules:
        return modules[path].register_forward_hook(lambda *_: call())
    return modules[path.removesuffix(".input")].register_forward_pre_hook(lambda *_: call())


def _lower(network: nn.Module, half: torch.dtype | None) -> None:
    """Weights that autocast would convert in every pass, converted once."""
    if half is not None:
        for module in network.modules():
            if type(module) in _WEIGHTED and not parametrize.is_parametrized(module):
                module.to(half)
