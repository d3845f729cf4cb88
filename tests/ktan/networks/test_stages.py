"""Stages of our networks, of torchvision's and of one's own, and what a tap reads there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ktan.networks import NETWORKS, NetworkSpec, build, default_hint, stages_of, stages_within
from ktan.networks.stages import NetworkStages
from ktan.tap_reader import read_taps, tap_shapes

COLOUR = (3, 32, 32)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            NetworkSpec("resnet20", COLOUR, 10),
            NetworkStages(
                ("features.layer1", "features.layer2", "features.layer3"),
                (
                    "features.layer1.2.relu.input",
                    "features.layer2.2.relu.input",
                    "features.layer3.2.relu.input",
                ),
                "features",
            ),
        ),
        (
            NetworkSpec("cnn-small", (1, 28, 28), 10),
            NetworkStages(
                ("features.1", "features.3"), ("features.1.input", "features.3.input"), "features"
            ),
        ),
        (
            NetworkSpec("conv-large-student", COLOUR, 10),
            NetworkStages(
                ("features.block1", "features.block2", "features.block3"),
                (
                    "features.block1.8.input",
                    "features.block2.8.input",
                    "features.block3.8.input",
                ),
                "features",
            ),
        ),
        (NetworkSpec("mlp-small", (17,), 3), NetworkStages((), (), "features")),
        (NetworkSpec("mlp-small", (1, 7, 7), 3), NetworkStages((), (), "features")),
        (
            NetworkSpec("torchvision:resnet18", (3, 64, 64), 10),
            NetworkStages(
                ("relu", "layer1", "layer2", "layer3", "layer4"),
                (
                    "relu.input",
                    "layer1.1.relu.input",
                    "layer2.1.relu.input",
                    "layer3.1.relu.input",
                    "layer4.1.relu.input",
                ),
                "fc.input",
            ),
        ),
        (
            # The expansion in a stage's first block still runs at the resolution before.
            NetworkSpec("torchvision:mobilenet_v2", (3, 64, 64), 10),
            NetworkStages(
                ("features.1", "features.3", "features.6", "features.13", "features"),
                (
                    "features.1.conv.0.2.input",
                    "features.3.conv.1.2.input",
                    "features.6.conv.1.2.input",
                    "features.13.conv.1.2.input",
                    "features.18.2.input",
                ),
                "classifier.1.input",
            ),
        ),
        (
            # So does a bottleneck's first convolution.
            NetworkSpec("torchvision:resnet50", (3, 64, 64), 10),
            NetworkStages(
                ("relu", "layer1", "layer2", "layer3", "layer4"),
                (
                    "relu.input",
                    "layer1.2.relu.input",
                    "layer2.3.relu.input",
                    "layer3.5.relu.input",
                    "layer4.2.relu.input",
                ),
                "fc.input",
            ),
        ),
        (
            NetworkSpec("mobilenetv2-half", COLOUR, 10),
            NetworkStages(
                ("features.layer2", "features.layer3", "features.layer5", "features.last"),
                (
                    "features.layer2.1.depthwise.2.input",
                    "features.layer3.2.depthwise.2.input",
                    "features.layer5.2.depthwise.2.input",
                    "features.last.2.input",
                ),
                "features",
            ),
        ),
        (
            NetworkSpec("shufflenetv2", COLOUR, 10),
            NetworkStages(
                ("features.stem", "features.layer1", "features.layer2", "features.last"),
                (
                    "features.stem.2.input",
                    "features.layer1.3.branch.7.input",
                    "features.layer2.7.branch.7.input",
                    "features.last.2.input",
                ),
                "features",
            ),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, NetworkSpec) else "",
)
def test_stages(spec: NetworkSpec, expected: NetworkStages) -> None:
    assert stages_of(spec) == expected


@pytest.mark.parametrize(
    "spec",
    [
        *(
            NetworkSpec(name, COLOUR, 10)
            for name in NETWORKS
            if ":" not in name and name.removeprefix("wide-") not in ("resnet56", "resnet110")
        ),
        NetworkSpec("torchvision:resnet18", (3, 64, 64), 10),
        NetworkSpec("torchvision:mobilenet_v2", (3, 64, 64), 10),
    ],
    ids=lambda spec: spec.name,
)
def test_paths_are_taps_of_maps_that_shrink(spec: NetworkSpec) -> None:
    stages = stages_of(spec)
    with torch.device("meta"):
        network = build(spec)
        paths = [*stages.maps, *stages.before_activation, stages.pooled]
        shapes = tap_shapes(network, spec.input_shape, paths)
    sides = [shapes[path][1] for path in stages.maps]
    assert sides == sorted(set(sides), reverse=True)
    before = [shapes[path] for path in stages.before_activation]
    assert [shape[1:] for shape in before] == [shapes[path][1:] for path in stages.maps]
    # Blocks of these end without an activation, or with one on some of the channels.
    if not re.search("mobilenet|shufflenet", spec.name):
        assert before == [shapes[path] for path in stages.maps]
    assert stages.pooled == default_hint(spec)


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec("resnet14", COLOUR, 4),
        NetworkSpec("cnn-small", (1, 20, 20), 4),
        NetworkSpec("torchvision:resnet18", (3, 40, 40), 4),
    ],
    ids=lambda spec: spec.name,
)
def test_a_map_is_the_activation_of_what_comes_before(spec: NetworkSpec) -> None:
    torch.manual_seed(0)
    stages = stages_of(spec)
    network = build(spec).eval()
    with read_taps(network, [*stages.maps, *stages.before_activation]) as read, torch.no_grad():
        _, features = read(torch.randn(2, *spec.input_shape))
    for after, before in zip(stages.maps, stages.before_activation, strict=True):
        assert (features[before] < 0).any()
        assert torch.equal(features[after], features[before].relu())


OWN = """
import torch.nn.functional as F
from torch import nn

class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(1, after)
    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))

class Functional(nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.one = Block(input_shape[0], 4)
        self.two = Block(4, 6)
        self.head = nn.Linear(6, classes)
    def forward(self, x):
        return self.head(self.two(self.one(x)).mean((2, 3)))

class OneActivation(nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.one = nn.Conv2d(input_shape[0], 4, 3, stride=2)
        self.two = nn.Conv2d(4, 6, 3, stride=2)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, classes)
    def forward(self, x):
        x = self.relu(self.one(x))
        return self.head(self.relu(self.two(x)).mean((2, 3)))
"""


def test_networks_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_stages_of_the_test.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    functional = NetworkSpec("own_stages_of_the_test:Functional", (3, 16, 16), 4)
    stages = stages_of(functional)
    assert stages == NetworkStages(("one", "two"), ("one.norm", "two.norm"), "head.input")
    network = build(functional)
    with read_taps(network, [*stages.maps, *stages.before_activation]) as read:
        _, features = read(torch.randn(2, 3, 16, 16))
    assert torch.equal(features["two"], features["two.norm"].relu())
    # An activation that runs twice is read at its last run: the first stage has none of its own.
    shared = stages_of(NetworkSpec("own_stages_of_the_test:OneActivation", (3, 16, 16), 4))
    assert shared == NetworkStages(("one", "relu"), ("one", "relu.input"), "head.input")


INSIDE = """
from torch import nn

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(4, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.three = nn.Conv2d(4, 4, 3, stride=2, padding=1)
    def forward(self, x):
        return self.three(self.two(self.one(x)))

class WithBody(nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.stem = nn.Conv2d(input_shape[0], 4, 1)
        self.body = Body()
        self.head = nn.Linear(4, classes)
    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))
"""


def test_a_body_of_several_resolutions_is_no_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_body_of_the_test.py").write_text(INSIDE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    stages = stages_of(NetworkSpec("own_body_of_the_test:WithBody", (3, 16, 16), 4))
    assert stages.maps == ("body.one", "body.two", "body")


def test_a_transformers_tokens_are_no_maps() -> None:
    spec = NetworkSpec("torchvision:vit_b_32", (3, 64, 64), 7, {"image_size": 64})
    assert stages_of(spec).maps == ("conv_proj",)


@pytest.mark.parametrize("name", ["resnet8", "conv-large-student", "torchvision:resnet18"])
def test_a_network_at_hand_has_the_stages_of_its_kind_and_stays_as_it_was(name: str) -> None:
    spec = NetworkSpec(name, COLOUR, 7)
    network = build(spec)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    stages, classes = stages_within(network, COLOUR)
    named = stages_of(spec)
    assert (stages.maps, stages.before_activation) == (named.maps, named.before_activation)
    assert classes == 7
    with read_taps(network.eval(), [stages.pooled, named.pooled]) as read:
        _, features = read(torch.randn(2, *COLOUR))
    assert torch.equal(features[stages.pooled], features[named.pooled])
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_dry_run_leaves_every_modules_mode() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten())
    network[1].eval()
    stages, classes = stages_within(network, (3, 4, 4))
    assert [module.training for module in network] == [True, False, True, True]
    assert (stages.pooled, classes) == ("", 8)
