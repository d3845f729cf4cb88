"""torchvision's networks and a user's own, behind the same door."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ktan.errors import UserError
from ktan.networks import NetworkSpec, build, default_hint, multiply_adds
from ktan.tap_reader import read_taps, tap_shapes
from ktan.taps import pool


@pytest.mark.parametrize(
    ("name", "feature"),
    [("resnet18", 512), ("mobilenet_v2", 1280), ("shufflenet_v2_x0_5", 1024), ("googlenet", 1024)],
)
def test_torchvision_classifiers(name: str, feature: int) -> None:
    spec = NetworkSpec(f"torchvision:{name}", (1, 64, 64), 7)
    network = build(spec).eval()
    with read_taps(network, [default_hint(spec)]) as reader, torch.no_grad():
        logits, features = reader(torch.randn(2, 1, 64, 64))
    assert logits.shape == (2, 7)
    assert [pool(value).shape for value in features.values()] == [(2, feature)]
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_published_multiply_adds_of_resnet18() -> None:
    # torchvision's own table: 1.814 G for 224 x 224, three channels, 1000 classes.
    spec = NetworkSpec("torchvision:resnet18", (3, 224, 224), 1000)
    assert multiply_adds(spec) / 1e9 == pytest.approx(1.814, abs=0.002)


def test_transformers_have_a_default_hint() -> None:
    spec = NetworkSpec("torchvision:vit_b_32", (3, 64, 64), 7, {"image_size": 64})
    with torch.device("meta"):
        network = build(spec)
        assert tap_shapes(network, (3, 64, 64), [default_hint(spec)]) == {
            "heads.head.input": (768,)
        }


OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, input_shape, classes, width=6):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(input_shape[0], width, 3), nn.ReLU(inplace=True))
        self.head = nn.Linear(width, classes)
    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

class NoHead(nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.body = nn.Conv2d(input_shape[0], classes, 3)
    def forward(self, x):
        return self.body(x).mean((2, 3))

def not_a_network(input_shape, classes):
    return 3

def takes_nothing():
    return nn.Identity()
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_networks_of_the_test.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_networks_of_the_test"


def test_a_users_own_network(own_module: str) -> None:
    spec = NetworkSpec(f"{own_module}:Own", (3, 9, 9), 4, {"width": 11})
    network = build(spec)
    assert isinstance(network, nn.Module)
    assert network(torch.zeros(2, 3, 9, 9)).shape == (2, 4)
    assert default_hint(spec) == "head.input"
    assert tap_shapes(network, (3, 9, 9), ["head.input"]) == {"head.input": (11,)}
    # Its ReLU would have overwritten this tap.
    with read_taps(network, ["body.0"]) as reader:
        assert (reader(torch.randn(2, 3, 9, 9))[1]["body.0"] < 0).any()


def test_mistakes(own_module: str) -> None:
    def made(name: str, **options: object) -> nn.Module:
        return build(NetworkSpec(name, (3, 32, 32), 4, options))

    with pytest.raises(UserError, match="PYTHONPATH"):
        made("no_such_module_here:Own")
    with pytest.raises(UserError, match="Nothing"):
        made(f"{own_module}:Nothing")
    with pytest.raises(UserError, match="made a int"):
        made(f"{own_module}:not_a_network")
    with pytest.raises(UserError, match="must take input_shape"):
        made(f"{own_module}:takes_nothing")
    with pytest.raises(UserError, match="options"):
        made(f"{own_module}:Own", hight=3)
    with pytest.raises(UserError, match="name the hint yourself"):
        default_hint(NetworkSpec(f"{own_module}:NoHead", (3, 32, 32), 4))
    with pytest.raises(UserError, match="no classifier 'resnet19'"):
        made("torchvision:resnet19")
    with pytest.raises(UserError, match="no classifier"):
        made("torchvision:fasterrcnn_resnet50_fpn")
    with pytest.raises(UserError, match="options"):
        made("torchvision:resnet18", hight=3)
    with pytest.raises(UserError, match="takes images"):
        build(NetworkSpec("torchvision:resnet18", (12,), 4))
