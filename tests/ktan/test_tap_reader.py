"""A reader hands out what a network computes, and changes nothing about it."""

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.tap_reader import read_taps, tap_shapes

SPEC = NetworkSpec("cnn-small", (1, 28, 28), 10)


def samples(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def test_outputs_and_inputs_of_modules() -> None:
    network = build(SPEC)
    x = samples()
    with read_taps(network, ["features.0", "features.1.input", "features.1", "features"]) as reader:
        logits, seen = reader(x)
    assert torch.equal(logits, network(x))
    convolved = network.features[0](x)  # type: ignore[index]
    assert torch.equal(seen["features.0"], convolved)
    assert torch.equal(seen["features.1.input"], convolved)
    assert torch.equal(seen["features.1"], convolved.relu())
    assert torch.equal(seen["features"], network.features(x))  # type: ignore[operator]
    assert list(seen) == list(reader.paths)


def test_gradients_pass_through_a_tap() -> None:
    network = build(SPEC)
    with read_taps(network, ["features"]) as reader:
        _, seen = reader(samples())
        seen["features"].square().sum().backward()
    gradient = network.features[0].weight.grad  # type: ignore[index, union-attr]
    assert gradient is not None
    assert network.classifier.weight.grad is None  # type: ignore[union-attr]
    again = build(SPEC)
    again.load_state_dict(network.state_dict())
    again.features(samples()).square().sum().backward()  # type: ignore[operator]
    assert torch.equal(gradient, again.features[0].weight.grad)  # type: ignore[index, union-attr]


def test_stacked_networks_equal_single_ones() -> None:
    torch.manual_seed(0)
    networks = [build(SPEC) for _ in range(4)]
    x = samples()
    parameters, _ = torch.func.stack_module_state(networks)
    reader = read_taps(copy.deepcopy(networks[0]), ["features"])
    logits, seen = torch.func.vmap(reader.functional, in_dims=(0, None))(parameters, x)
    for place, network in enumerate(networks):
        with read_taps(network, ["features"]) as single:
            one, features = single(x)
        torch.testing.assert_close(logits[place], one)
        torch.testing.assert_close(seen["features"][place], features["features"])

    def loss(values: dict[str, Tensor]) -> Tensor:
        return reader.functional(values, x)[1]["features"].square().mean()

    gradients = torch.func.vmap(torch.func.grad(loss))(parameters)
    networks[2].features(x).square().mean().backward()  # type: ignore[operator]
    torch.testing.assert_close(
        gradients["features.0.weight"][2],
        networks[2].features[0].weight.grad,  # type: ignore[index, union-attr]
    )


def test_threads_do_not_see_each_others_samples() -> None:
    network = build(SPEC).eval()
    inputs = [samples(2, seed) for seed in range(8)]
    expected = [network.features(x).detach() for x in inputs]  # type: ignore[operator]
    reader = read_taps(network, ["features"])
    wrong: list[int] = []

    def work(place: int) -> None:
        for _ in range(40):
            with torch.no_grad():
                seen = reader(inputs[place])[1]["features"]
            if not torch.allclose(seen, expected[place], atol=1e-6):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing_leaves_the_network_as_it_was() -> None:
    network = build(SPEC)
    with read_taps(network, ["features", "classifier.input"]):
        assert (
            sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()) == 2
        )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_works_in_inference_mode() -> None:
    network = build(SPEC).eval()
    with read_taps(network, ["features"]) as reader, torch.inference_mode():
        logits, seen = reader(samples())
        assert torch.equal(network.classifier(seen["features"]), logits)  # type: ignore[operator]


def test_an_overwritten_tap_is_refused() -> None:
    """Attention to this saves AB: a pre-activation map that ReLU overwrote is never negative."""
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    with (
        read_taps(network, ["0"]) as reader,
        pytest.raises(UserError, match="overwrites the output of 0"),
    ):
        reader(torch.randn(4, 3))


def test_wrong_paths_list_the_right_ones() -> None:
    network = build(SPEC)
    with pytest.raises(UserError, match=r"'layer9'.*features\.0.*classifier"):
        read_taps(network, ["features", "layer9"])
    assert not any(m._forward_hooks for m in network.modules())

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)
            self.pair = nn.LSTM(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.pair(x)
            y: Tensor = self.used(x)
            return y

    with (
        read_taps(Unused(), ["spare"]) as reader,
        pytest.raises(UserError, match="did not run it"),
    ):
        reader(torch.zeros(1, 3))
    with read_taps(Unused(), ["pair"]) as reader, pytest.raises(UserError, match="not one tensor"):
        reader(torch.zeros(1, 3))


def test_shapes_come_from_a_dry_run_that_leaves_no_trace() -> None:
    network = build(NetworkSpec("resnet8", (3, 32, 32), 10)).train()
    network.features.layer2.eval()  # type: ignore[union-attr]
    before = copy.deepcopy(network.state_dict())
    shapes = tap_shapes(network, (3, 32, 32), ["features.layer2", "features"])
    assert shapes == {"features.layer2": (32, 16, 16), "features": (64,)}
    assert network.training
    assert not network.features.layer2.training  # type: ignore[union-attr]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
