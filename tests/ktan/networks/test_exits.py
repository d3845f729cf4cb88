"""Networks that end early: what they say, what they hold, and what they cost."""

import pytest
import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.networks import NetworkSpec, build, count_parameters, multiply_adds, stages_of
from ktan.networks.exits import (
    ExitHead,
    ExitSpec,
    build_exit,
    cut_at,
    exit_heads,
    exit_multiply_adds,
)
from ktan.tap_reader import read_taps, tap_shapes

RESNET = NetworkSpec("resnet8", (3, 8, 8), 10)


def exit_at(spec: NetworkSpec, path: str, stride: int = 1) -> ExitSpec:
    channels = tap_shapes(build(spec), spec.input_shape, [path])[path][0]
    return ExitSpec(path, channels, 8, spec.classes, stride)


OTHERS = [
    NetworkSpec("cnn-small", (1, 28, 28), 10),
    NetworkSpec("conv-large-student", (3, 8, 8), 4),
]


@pytest.mark.parametrize("spec", [RESNET, *OTHERS], ids=lambda spec: spec.name)
def test_a_cut_network_says_what_the_exit_of_the_whole_one_says(spec: NetworkSpec) -> None:
    torch.manual_seed(0)
    network = build(spec).eval()
    samples = torch.randn(3, *spec.input_shape)
    costs = []
    for path in stages_of(spec).maps[:-1]:
        head = ExitHead(exit_at(spec, path)).eval()
        cut = cut_at(spec, network, head).eval()
        with torch.no_grad():
            with read_taps(network, [path]) as read:
                expected = head(read(samples)[1][path])[0]
            assert torch.equal(cut(samples), expected)
        assert count_parameters(cut) < count_parameters(network) + count_parameters(head)
        costs.append(exit_multiply_adds(spec, head.spec))
    assert costs == sorted(costs)
    # Each exit's own head is small beside what it saves.
    assert costs[-1] < multiply_adds(spec)


def test_an_exits_cost_by_hand() -> None:
    stem = 64 * 3 * 9 * 16
    layer = 64 * 2 * 16 * 9 * 16
    spec = ExitSpec("features.layer1", 16, 8, 10, 2)
    head = 64 * 16 * 2 + 16 * 2 * 4 * 2 + 16 * 2 * 8 + 8 * 10
    assert exit_multiply_adds(RESNET, spec) == stem + layer + head


def test_nothing_behind_the_exit_is_kept() -> None:
    cut = build_exit(RESNET, exit_at(RESNET, "features.layer1"))
    kept = {name.split(".")[1] for name, _ in cut.network.named_parameters()}
    assert kept == {"stem", "layer1"}


class Twice(nn.Module):
    """Runs one activation at two places."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(input_shape[0], 4, 3)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(4, 4, 3, stride=2)
        self.classifier = nn.Linear(4, classes)

    def forward(self, samples: Tensor) -> Tensor:
        out = self.relu(self.second(self.relu(self.first(samples))))
        logits: Tensor = self.classifier(out.mean(dim=(2, 3)))
        return logits


def test_a_module_that_runs_twice_is_no_place_to_cut() -> None:
    spec = NetworkSpec(f"{__name__}:Twice", (1, 12, 12), 2)
    with pytest.raises(UserError, match="runs relu 2 times"):
        build_exit(spec, ExitSpec("relu", 4, 4, 2, 1))
    with pytest.raises(UserError, match="no module 'nowhere'"):
        build_exit(spec, ExitSpec("nowhere", 4, 4, 2, 1))
    build_exit(spec, ExitSpec("first", 4, 4, 2, 1))(torch.zeros(2, 1, 12, 12))


def test_exits_are_found_in_what_holds_them_and_fit_a_card() -> None:
    spec = ExitSpec("features.layer2", 32, 8, 10, 2)
    assert ExitSpec.from_json(spec.to_json()) == spec
    heads = [ExitHead(spec), ExitHead(spec)]
    assert exit_heads(nn.ModuleDict({"a": heads[0], "b": nn.Sequential(heads[1])})) == heads
    assert exit_heads(nn.Linear(1, 1)) == []
