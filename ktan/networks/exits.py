"""Early exits: classifiers behind a network's inner maps (Zhang et al. 2019), usable on their own.

A network with an exit is the network cut behind the exit's tap, and the exit's head on top: nothing
behind the tap is run or kept.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.networks.build import build
from ktan.networks.spec import NetworkSpec

_SQUEEZE = 4
"""How much narrower an exit's inner convolution is than its feature, as in BYOT's own bottleneck
(He et al. 2016)."""


@dataclass(frozen=True)
class ExitSpec:
    """Everything that is needed to build an exit again; plain values, so that it fits a card."""

    path: str
    """The module whose map it classifies."""
    channels: int
    """Of that map."""
    features: int
    """Length of its feature vector: that of the network's own, before the classifier."""
    classes: int
    stride: int
    """Of its inner convolution: from the map's side to that of the network's last map."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ExitSpec":
        """The inverse of `to_json`. Raises TypeError for anything else."""
        return cls(**content)


class ExitHead(nn.Module):
    """Bottleneck convolutions, mean over positions, one linear layer."""

    def __init__(self, spec: ExitSpec) -> None:
        super().__init__()
        self.spec = spec
        inner = max(1, spec.features // _SQUEEZE)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(spec.channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, spec.stride, spec.stride, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, spec.features, 1, bias=False),
            nn.BatchNorm2d(spec.features),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(spec.features, spec.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """float [n, channels, h, w] → logits [n, classes] and feature [n, features]."""
        feature = self.bottleneck(feature_map).mean(dim=(2, 3))
        return self.classifier(feature), feature


class _Reached(Exception):
    """No error: it ends a forward pass early."""

    def __init__(self, feature_map: Tensor) -> None:
        super().__init__()
        self.feature_map = feature_map


def _stop(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    raise _Reached(output)


class ExitNetwork(nn.Module):
    """float [n, *input_shape] (normalised) → an exit's logits [n, classes]."""

    def __init__(self, network: nn.Module, head: ExitHead) -> None:
        """`network` runs up to the head's path and no further from now on."""
        super().__init__()
        self.network = network
        self.head = head
        network.get_submodule(head.spec.path).register_forward_hook(_stop)

    def forward(self, samples: Tensor) -> Tensor:
        """float [n, *input_shape] → logits [n, classes]."""
        try:
            self.network(samples)
        except _Reached as reached:
            logits: Tensor = self.head(reached.feature_map)[0]
            return logits
        raise RuntimeError(f"the network did not run {self.head.spec.path}")


def exit_heads(module: nn.Module) -> list[ExitHead]:
    """The exits that a method trains (`Objective`), in order of depth; empty for most."""
    return [part for part in module.modules() if isinstance(part, ExitHead)]


def build_exit(spec: NetworkSpec, exit_spec: ExitSpec) -> ExitNetwork:
    """A new network that stops at an exit, without the modules behind it.

    Raises UserError where `build` does, and for a module that runs several times in one pass, at
    whose last run training looked: there is no place to cut.
    """
    network = build(spec)
    for path in _behind(spec, exit_spec.path):
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())
    return ExitNetwork(network, ExitHead(exit_spec))


def cut_at(spec: NetworkSpec, network: nn.Module, head: ExitHead) -> ExitNetwork:
    """The same with a trained network's weights, of which it keeps a copy, and a trained head's."""
    found = build_exit(spec, head.spec)
    kept = found.network.state_dict()
    weights = {name: value for name, value in network.state_dict().items() if name in kept}
    found.network.load_state_dict(weights)
    found.head.load_state_dict(head.state_dict())
    return found


def exit_multiply_adds(spec: NetworkSpec, exit_spec: ExitSpec) -> int:
    """Multiply-adds up to and with an exit, for one sample; nothing is computed."""
    # Comes with Triton, where that is installed.
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = build_exit(spec, exit_spec).eval()
        sample = torch.empty(1, *spec.input_shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(sample)
    return int(counter.get_total_flops()) // 2


def _behind(spec: NetworkSpec, path: str) -> list[str]:
    """Outermost modules that run only after `path` has."""
    with torch.device("meta"):
        network = build(spec).eval()
    modules = dict(network.named_modules())
    if not path or path not in modules:
        raise UserError(f"{spec.name} has no module {path!r} to exit behind")
    runs = dict.fromkeys(modules, 0)
    before: list[str] = []

    def starts(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            runs[name] += 1
            if not runs[path]:
                before.append(name)

        return hook

    for name, module in modules.items():
        module.register_forward_pre_hook(starts(name))
    with torch.no_grad():
        network(torch.empty(1, *spec.input_shape, device="meta"))
    if runs[path] != 1:
        raise UserError(
            f"{spec.name} runs {path} {runs[path]} times in one pass and cannot be cut there; "
            "take the whole student"
        )
    kept = {*before, path}
    # What never runs as a module may be looked into by the one around it, and stays.
    gone = [
        name
        for name in modules
        if runs[name]
        and name not in kept
        and not name.startswith(f"{path}.")
        and not any(other.startswith(f"{name}.") for other in kept)
    ]
    return [name for name in gone if not any(name.startswith(f"{other}.") for other in gone)]
