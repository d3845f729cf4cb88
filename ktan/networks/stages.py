"""Stages of a network: where its maps change resolution, found by one dry run.

Methods that compare stage by stage (AT, AB, FSP, KSANC) need a path in each stage of a teacher and
of a student that know nothing of each other. A *stage* is all that runs at one resolution, and its
map is the last that a module puts out there:

    resnet8                 features.layer1, features.layer2, features.layer3
    torchvision:resnet18    relu, layer1, layer2, layer3, layer4

A block that leads from one resolution to another may still work at the first one inside: the
expansion of an inverted residual, the first convolution of a bottleneck or of one of its branches.
That is a part of what the block makes of the stage's map, and not the map.

An activation that a network calls as a function (`F.relu`) is no module, and has no path: the
stage's map then is what the block around the call puts out, or, without a block, what comes before
the call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ktan.networks.build import build, default_hint
from ktan.networks.spec import NetworkSpec

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
# Each turns at zero: the sign of what goes in says on which side of its boundary a neuron is.
_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Hardswish,
)  # fmt: skip


_Resolution = tuple[int, int]


@dataclass(frozen=True)
class NetworkStages:
    """Module paths to tap (`ktan.taps`), a stage each, in the order in which they run."""

    maps: tuple[str, ...]
    """The last map of each stage, after its activation; empty for a network of vectors."""
    before_activation: tuple[str, ...]
    """What goes into each stage's last activation, `PATH.input`; where the network calls it as a
    function, what the stage's last convolution or norm puts out. As long as `maps`; its channels
    may differ from the map's (the branches of an Inception block, the inside of an inverted
    residual, which ends without an activation)."""
    pooled: str
    """The vector before the classifier (`default_hint`)."""


@dataclass(frozen=True)
class _Output:
    """What a module put out at its last run, the only one that a tap reads."""

    path: str
    module: nn.Module
    resolution: _Resolution
    entered: _Resolution | None
    """Resolution of the map that went in, where a convolution had put out one like it before."""


def stages_of(spec: NetworkSpec) -> NetworkStages:
    """The stages of a network of this kind; nothing is computed.

    Maps of one pixel are vectors, and no stage. A resolution counts where a convolution puts it
    out: that tells maps [n, c, h, w] from a transformer's [n, h, w, c]. Raises UserError where
    `build` does, or when the network has no linear classifier.
    """
    with torch.device("meta"):
        network = build(spec).eval()
        outputs, _ = _dry_run(network, torch.empty(1, *spec.input_shape))
    return _stages(outputs, default_hint(spec))


def stages_within(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[NetworkStages, int]:
    """The stages of a network at hand, and how many classes it tells apart, by one dry run.

    `pooled` is what goes into the last linear layer with an output a class, empty where there is
    none. The network is left as it was, training mode and statistics included.
    """
    like = next(network.parameters(), torch.empty(0))
    samples = torch.zeros(2, *input_shape, device=like.device, dtype=like.dtype)
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        outputs, logits = _dry_run(network, samples)
    finally:
        for module, mode in training.items():
            module.training = mode
    classes = logits.shape[1]
    linear = [
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    return _stages(outputs, f"{linear[-1]}.input" if linear else ""), classes


def _stages(outputs: list[_Output], pooled: str) -> NetworkStages:
    stages = _by_resolution(outputs)
    return NetworkStages(
        tuple(stage[-1].path for stage in stages),
        tuple(_before_activation(stage) for stage in stages),
        pooled,
    )


def _dry_run(network: nn.Module, samples: Tensor) -> tuple[list[_Output], Tensor]:
    """Every module's map at its last run, in the order in which they finish; and the logits."""
    finished: dict[str, _Output] = {}
    convolved: set[_Resolution] = set()
    entered: dict[str, _Resolution | None] = {}

    def begin(path: str) -> Callable[[nn.Module, Any], None]:
        def hook(_: nn.Module, inputs: Any) -> None:
            resolution = _resolution(inputs[0]) if inputs else None
            entered[path] = resolution if resolution in convolved else None

        return hook

    def remember(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            finished.pop(path, None)
            resolution = _resolution(output)
            if resolution is not None:
                finished[path] = _Output(path, module, resolution, entered[path])
                if isinstance(module, _CONVOLUTIONS):
                    convolved.add(resolution)

        return hook

    hooks = [
        hook
        for path, module in network.named_modules()
        if path
        for hook in (
            module.register_forward_pre_hook(begin(path)),
            module.register_forward_hook(remember(path)),
        )
    ]
    try:
        with torch.no_grad():
            logits: Tensor = network(samples)
    finally:
        for hook in hooks:
            hook.remove()
    return _without_passages(list(finished.values())), logits


def _resolution(value: Any) -> _Resolution | None:
    if not (isinstance(value, Tensor) and value.ndim == 4):
        return None
    height, width = value.shape[2:]
    return (height, width)


def _without_passages(outputs: list[_Output]) -> list[_Output]:
    """Leaves out what a block puts out inside at the resolution that it leads away from.

    A block is no sequence, knows two resolutions and no third (vectors apart), and a convolution
    before it has put out a map at the first: that stage has an end without the block.
    """
    left_out: set[str] = set()
    for block in outputs:
        if block.entered in (None, block.resolution) or isinstance(block.module, nn.Sequential):
            continue
        inside = [out for out in outputs if out.path.startswith(f"{block.path}.")]
        if {out.resolution for out in inside} <= {block.entered, block.resolution, (1, 1)}:
            left_out |= {out.path for out in inside if out.resolution == block.entered}
    return [out for out in outputs if out.path not in left_out]


def _by_resolution(outputs: list[_Output]) -> list[list[_Output]]:
    """Outputs of one resolution each, ordered by their last."""
    real = {out.resolution for out in outputs if isinstance(out.module, _CONVOLUTIONS)}
    stages: dict[tuple[int, int], list[_Output]] = {}
    for out in outputs:
        if out.resolution in real and out.resolution != (1, 1):
            stage = stages.pop(out.resolution, [])
            stages[out.resolution] = [*stage, out]
    return list(stages.values())


def _before_activation(stage: list[_Output]) -> str:
    activations = [out for out in stage if isinstance(out.module, _ACTIVATIONS)]
    if activations:
        return f"{activations[-1].path}.input"
    layers = [out for out in stage if isinstance(out.module, (*_CONVOLUTIONS, *_NORMS))]
    return layers[-1].path
