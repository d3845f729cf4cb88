"""Networks that are not ours: torchvision's classifiers by name, and a user's own."""

import importlib
from typing import Any

from torch import nn

from ktan.errors import UserError
from ktan.networks.spec import NetworkSpec


def build_torchvision(spec: NetworkSpec) -> nn.Module:
    """`torchvision:NAME` with fresh weights; `options` go to torchvision's own function.

    Its first convolution is brought to the samples' channels. Raises UserError for an unknown
    name or option.
    """
    # torchvision takes a second to import; only these networks need it.
    from torchvision import models

    name = spec.name.removeprefix("torchvision:")
    # torchvision lists its detectors beside its classifiers; the classifiers are at the top level.
    known = models.list_models(module=models)
    if name not in known:
        raise UserError(f"torchvision has no classifier {name!r}; it has {', '.join(known)}")
    extra: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        # Their auxiliary classifiers would turn one output into three.
        extra = {"aux_logits": False, "init_weights": True}
    try:
        network = models.get_model(
            name, weights=None, num_classes=spec.classes, **extra, **spec.options
        )
    except TypeError as error:
        raise UserError(
            f"network {spec.name} does not take the options {dict(spec.options)}: {error}"
        ) from error
    if len(spec.input_shape) != 3:
        raise UserError(f"{spec.name} takes images, not samples of shape {list(spec.input_shape)}")
    _take_channels(network, spec.input_shape[0])
    without_inplace(network)
    return network  # type: ignore[no-any-return]


def build_own(spec: NetworkSpec) -> nn.Module:
    """`module:attribute`, called as `attribute(input_shape=..., classes=..., **options)`.

    It must return a module that maps float [n, *input_shape] to logits [n, classes]. Raises
    UserError when it cannot be imported or does not take these arguments.
    """
    module_name, _, attribute = spec.name.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise UserError(
            f"network {spec.name}: {error}; put its folder on PYTHONPATH or install it"
        ) from error
    except AttributeError as error:
        raise UserError(f"network {spec.name}: {error}") from error
    try:
        network = make(input_shape=spec.input_shape, classes=spec.classes, **spec.options)
    except TypeError as error:
        raise UserError(
            f"network {spec.name} must take input_shape, classes and the options "
            f"{dict(spec.options)}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"network {spec.name} made a {type(network).__name__}, not a torch module")
    without_inplace(network)
    return network


def without_inplace(network: nn.Module) -> None:
    """Lets no activation overwrite what a tap read before it."""
    for module in network.modules():
        if getattr(module, "inplace", None) is True:
            module.inplace = False  # type: ignore[assignment]


def _take_channels(network: nn.Module, channels: int) -> None:
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels == channels:
                return
            first = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                module.dilation,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, first)
            return
