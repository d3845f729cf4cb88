"""A network made ready to answer computes less, and says the same."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.tap_reader import read_taps
from ktan.teachers.answering import AnsweringNetwork
from ktan.teachers.folding import foldable, folded

SHAPE = (3, 8, 8)
SPEC = NetworkSpec("resnet8", SHAPE, 4, {"widths": [2, 2, 3, 4]})
PATHS = ("features.layer1", "features.layer2.0.relu.input", "features.layer2")


def lived(network: nn.Module) -> nn.Module:
    """With statistics and weights as after training: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean, module.running_var):
                value.data.copy_(0.5 + torch.rand(value.shape, generator=generator))  # type: ignore[union-attr,operator,arg-type]
    return network.eval().requires_grad_(False)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return lived(build(SPEC))


def samples() -> Tensor:
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))


def test_folded_norms_are_gone_and_nothing_that_is_read_changes() -> None:
    network = resnet()
    ready = folded(network, SHAPE, PATHS)
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    with read_taps(network, PATHS) as one, read_taps(ready, PATHS) as other:
        (logits, features), (own, found) = one(samples()), other(samples())
    torch.testing.assert_close(own, logits, rtol=1e-5, atol=1e-5)
    for path in PATHS:
        torch.testing.assert_close(found[path], features[path], rtol=1e-5, atol=1e-5)


def test_what_is_read_before_a_norm_stays_unfolded() -> None:
    ready = folded(resnet(), SHAPE, ["features.stem.0", "features.layer3"])
    kept = [name for name, part in ready.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert kept == ["features.stem.1"]


class Around(nn.Module):
    """A norm past which the convolution's output goes, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.last = nn.Linear(3, 2)
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out: Tensor = self.last((self.norm(y) + y).mean(dim=(2, 3)))
        return out


def test_a_norm_that_something_goes_around_is_left_alone() -> None:
    network = lived(Around())
    ready = folded(network, SHAPE, ["norm"])
    assert isinstance(ready.get_submodule("norm"), nn.BatchNorm2d)
    assert torch.equal(ready(samples()), network(samples()))


def test_what_goes_around_a_norm_is_seen_while_the_norm_does_nothing_yet() -> None:
    assert foldable(Around().eval(), SHAPE, ["norm"]) == ()


def test_threads_that_share_a_network_each_stop_in_their_own_pass() -> None:
    network, path = resnet(), "features.layer1"
    answering = AnsweringNetwork(network, SHAPE, [path], logits=False, precision="float32")
    batches = [torch.randn(count, *SHAPE) for count in range(1, 5)] * 8
    alone = [answering(batch)[1][path] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: answering(batch)[1][path], batches))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


class Overwriting(nn.Module):
    """What the first layer puts out is overwritten by the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Flatten(), nn.ReLU(inplace=True)
        self.last = nn.Linear(192, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.second(self.first(x + 0)))
        return out


def test_a_tap_that_the_network_overwrites_is_refused_before_anything_is_answered() -> None:
    with pytest.raises(UserError, match="overwrites the output of first"):
        AnsweringNetwork(Overwriting().eval(), SHAPE, ["first"], logits=True, precision="float32")


@pytest.mark.parametrize("logits", [False, True])
def test_nothing_runs_behind_the_last_layer_that_is_read(logits: bool) -> None:
    network = resnet()
    expected, _ = read_taps(network, ())(samples())
    runs: list[str] = []
    answering = AnsweringNetwork(
        network, SHAPE, PATHS, logits=logits, precision="float32", as_it_is=True
    )
    for path in ("features.layer2", "features.layer3", "classifier"):
        network.get_submodule(path).register_forward_hook(lambda *_, path=path: runs.append(path))
    found, features = answering(samples())
    assert set(features) == set(PATHS)
    if logits:
        torch.testing.assert_close(found, expected)
        assert runs == ["features.layer2", "features.layer3", "classifier"]
    else:
        assert "features.layer3" not in runs
        assert "classifier" not in runs
    answering.close()
    assert torch.equal(network(samples()), expected)
    assert "classifier" in runs


def test_weights_lie_in_the_type_of_the_pass_and_the_given_network_stays() -> None:
    network = resnet()
    answering = AnsweringNetwork(network, SHAPE, PATHS, logits=True, precision="bf16")
    logits, features = answering(samples())
    assert features["features.layer1"].dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), network(samples()), rtol=0.05, atol=0.1)
    assert all(value.dtype == torch.float32 for value in network.parameters())
