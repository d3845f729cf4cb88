"""From a name to a network, its default hint, and its size."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ktan.errors import UserError
from ktan.networks.conv_large import STUDENT, ConvLarge
from ktan.networks.foreign import build_own, build_torchvision
from ktan.networks.mobilenetv2 import MobileNetV2
from ktan.networks.resnet import NARROW, WIDE, CifarResNet
from ktan.networks.shufflenetv2 import ShuffleNetV2
from ktan.networks.small import SmallCnn, SmallMlp
from ktan.networks.spec import NetworkSpec

NETWORKS = (
    "cnn-small",
    "mlp-small",
    *(f"{wide}resnet{depth}" for wide in ("", "wide-") for depth in (8, 20, 32, 56, 110)),
    "conv-large",
    "conv-large-student",
    "mobilenetv2",
    "mobilenetv2-half",
    "shufflenetv2",
    "torchvision:NAME",
    "module:attribute",
)
"""What a command's help lists; any resnet of depth 6 n + 2 is built, too."""

_RESNET = re.compile(r"(wide-)?resnet(\d+)")


def build(spec: NetworkSpec) -> nn.Module:
    """A new network, float [n, *input_shape] (normalised) -> logits [n, classes].

    Weights come from torch's current random state. Raises UserError for a name, an option or an
    input shape that does not fit.
    """
    if spec.classes < 1:
        raise UserError(f"network {spec.name}: {spec.classes} classes; at least one is needed")
    if spec.name.startswith("torchvision:"):
        return build_torchvision(spec)
    if ":" in spec.name:
        return build_own(spec)
    make, fixed = _ours(spec.name)
    try:
        return make(spec.input_shape, spec.classes, **{**fixed, **spec.options})
    except TypeError as error:
        raise UserError(
            f"network {spec.name} does not take the options {dict(spec.options)}: {error}"
        ) from error


def _ours(name: str) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    match = _RESNET.fullmatch(name)
    if match:
        return CifarResNet, {"depth": int(match[2]), "widths": WIDE if match[1] else NARROW}
    if name == "cnn-small":
        return SmallCnn, {}
    if name == "mlp-small":
        return SmallMlp, {}
    if name == "conv-large":
        return ConvLarge, {}
    if name == "conv-large-student":
        return ConvLarge, {"widths": STUDENT}
    if name == "mobilenetv2":
        return MobileNetV2, {}
    if name == "mobilenetv2-half":
        return MobileNetV2, {"width": 0.5}
    if name == "shufflenetv2":
        return ShuffleNetV2, {}
    raise UserError(f"no network is called {name!r}; there are {', '.join(NETWORKS)}")


def default_hint(spec: NetworkSpec) -> str:
    """Path of the pooled feature before the classifier: what goes into the last linear layer.

    `features` for our own networks, `PATH.input` (see `ktan.taps`) for others. Raises UserError
    when a network has no linear layer with one output a class.
    """
    if ":" not in spec.name:
        return "features"
    with torch.device("meta"):
        network = build(spec)
    linear = [
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == spec.classes
    ]
    if not linear:
        raise UserError(
            f"{spec.name} does not end in a linear layer; name the hint yourself: hint=PATH"
        )
    return f"{linear[-1]}.input"


def count_parameters(network: nn.Module) -> int:
    """Trainable and fixed parameters, without buffers."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(spec: NetworkSpec) -> int:
    """Multiply-adds of convolutions and matrix products for one sample; nothing is computed."""
    # Comes with Triton, where that is installed.
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = build(spec).eval()
        sample = torch.empty(1, *spec.input_shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(sample)
    return int(counter.get_total_flops()) // 2
