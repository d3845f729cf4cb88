"""Batch norms folded into the convolutions before them (Jacob et al. 2018, section 3.2).

Which norm stands behind which convolution is seen in a run; whether nobody else looked at what lay
between them, in the results, which must be equal. Both are matters of the network's structure: the
trained values of its norms decide nothing.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ktan.tap_reader import read_taps

Pair = tuple[str, str]
"""Paths of a convolution and of the norm that takes what it puts out."""

_SAMPLES = 2
_EXACT = 1e-9
"""Relative difference, in float64, up to which a folded network is the one that it was."""


def folded(network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]) -> nn.Module:
    """A copy, in evaluation mode, with every batch norm folded that `foldable` names.

    What is read at `paths` stays what it was.
    """
    plain = copy.deepcopy(network).eval()
    return fold(plain, foldable(plain, input_shape, paths))


def foldable(
    network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]
) -> tuple[Pair, ...]:
    """The norms that stand alone behind a convolution; empty where folding would change a result.

    `input_shape` of one sample; `paths`: what is read (`ktan.tap_reader`). Nothing is changed.
    """
    exact = copy.deepcopy(network).eval().double()
    pairs = _pairs(exact, input_shape, paths)
    if not pairs:
        return ()
    _draw_norms(exact, pairs)
    found = fold(copy.deepcopy(exact), pairs)
    return pairs if _equal(exact, found, input_shape, paths) else ()


def fold(network: nn.Module, pairs: Sequence[Pair]) -> nn.Module:
    """The network itself, with these norms folded, in float64, and frozen."""
    for before, norm in pairs:
        conv, behind = network.get_submodule(before), network.get_submodule(norm)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(behind, nn.BatchNorm2d)
        dtype = conv.weight.dtype
        fused = fuse_conv_bn_eval(conv.double(), behind.double())
        network.set_submodule(before, fused.to(dtype).requires_grad_(False))
        network.set_submodule(norm, nn.Identity())
    return network.requires_grad_(False)


@torch.no_grad()
def dry_run(network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]) -> list[Tensor]:
    """Logits, and what is read, of a few random samples."""
    like = next(network.parameters(), torch.empty(0))
    drawn = torch.randn(_SAMPLES, *input_shape, generator=torch.Generator().manual_seed(0))
    with read_taps(network, paths) as reader:
        logits, features = reader(drawn.to(like.device, like.dtype))
    return [logits, *features.values()]


def _pairs(
    network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]
) -> tuple[Pair, ...]:
    """Convolution and norm that follow each other and run once each."""
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
    dry_run(network, input_shape, ())
    for handle in handles:
        handle.remove()
    read = set(paths)
    return tuple(
        (before, norm)
        for norm, before in found.items()
        if runs[before] == runs[norm] == 1 and not read & {before, f"{norm}.input"}
    )


def _draw_norms(network: nn.Module, pairs: Sequence[Pair]) -> None:
    """Other values in every norm: a fresh one does nothing, and would hide what goes around it."""
    generator = torch.Generator().manual_seed(1)
    for _, norm in pairs:
        module = network.get_submodule(norm)
        assert isinstance(module, nn.BatchNorm2d)
        for value in (module.weight, module.bias, module.running_mean, module.running_var):
            if value is not None:
                drawn = 0.5 + torch.rand(value.shape, generator=generator, dtype=torch.float64)
                value.data.copy_(drawn)


def _equal(
    one: nn.Module, other: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str]
) -> bool:
    """Whether both, in float64, put out the same everywhere that is read."""
    results = [dry_run(network, input_shape, paths) for network in (one, other)]
    return all(
        float((a - b).abs().max()) <= _EXACT * (1 + float(a.abs().max()))
        for a, b in zip(*results, strict=True)
    )
