"""Sizes against the published ones, and every name builds what it says."""

import pytest
import torch

from ktan.errors import UserError
from ktan.networks import (
    NETWORKS,
    NetworkSpec,
    build,
    count_parameters,
    default_hint,
    multiply_adds,
)
from ktan.tap_reader import read_taps, tap_shapes

COLOUR = (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        # RepDistiller and mdistiller, CIFAR-100 (their resnet8x4 and resnet32x4 are the wide ones).
        ("resnet20", 100, 278_324),
        ("resnet56", 100, 861_620),
        ("resnet110", 100, 1_736_564),
        ("wide-resnet8", 100, 1_233_540),
        ("wide-resnet32", 100, 7_433_860),
        # pytorch-cifar-models, CIFAR-10.
        ("resnet20", 10, 272_474),
        ("resnet32", 10, 466_906),
    ],
)
def test_published_numbers_of_parameters(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build(NetworkSpec(name, COLOUR, classes))) == parameters


def test_published_multiply_adds() -> None:
    # pytorch-cifar-models: 40.81 M for ResNet-20, 69.12 M for ResNet-32, 125.75 M for ResNet-56.
    for name, millions in [("resnet20", 40.81), ("resnet32", 69.12), ("resnet56", 125.75)]:
        counted = multiply_adds(NetworkSpec(name, COLOUR, 10))
        assert counted / 1e6 == pytest.approx(millions, abs=0.02)


def test_ronas_compression() -> None:
    teacher = NetworkSpec("conv-large", COLOUR, 10, {"norm": "none"})
    student = NetworkSpec("conv-large-student", COLOUR, 10, {"norm": "none"})
    sizes = [count_parameters(build(spec)) for spec in (teacher, student)]
    # The arrays that the reference code declares: kernel side, channels in and out.
    arrays = {
        "teacher": [
            (3, 3, 128), (3, 128, 128), (3, 128, 128), (3, 128, 256), (3, 256, 256), (3, 256, 256),
            (3, 256, 512), (1, 512, 256), (1, 256, 128), (1, 128, 10),
        ],
        "student": [
            (3, 3, 32), (3, 32, 32), (3, 32, 32), (3, 32, 64), (3, 64, 64), (3, 64, 64),
            (3, 64, 64), (1, 64, 32), (1, 32, 32), (1, 32, 10),
        ],
    }  # fmt: skip
    assert sizes == [
        sum(side * side * before * after + after for side, before, after in layers)
        for layers in arrays.values()
    ]
    assert sizes[0] / sizes[1] > 20
    assert multiply_adds(teacher) / multiply_adds(student) > 16
    # RONA guides the student's second block by the teacher's first pooled map.
    (hint,) = tap_shapes(build(teacher), COLOUR, ["features.pool1"]).values()
    (guided,) = tap_shapes(build(student), COLOUR, ["features.block2"]).values()
    assert (hint, guided) == ((128, 16, 16), (64, 16, 16))


def test_small_network_is_as_documented() -> None:
    spec = NetworkSpec("cnn-small", (1, 28, 28), 10)
    assert count_parameters(build(spec)) == 46_730
    assert multiply_adds(spec) == 12 * 12 * 16 * 25 + 4 * 4 * 32 * 16 * 25 + 512 * 64 + 64 * 10
    assert not list(build(spec).buffers())


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec("cnn-small", (3, 20, 31), 4, {"width": 24, "channels": (5, 7)}),
        NetworkSpec("mlp-small", (17,), 3),
        NetworkSpec("mlp-small", (1, 5, 5), 3, {"hidden": [9]}),
        NetworkSpec("resnet8", (1, 28, 28), 7),
        NetworkSpec("wide-resnet8", COLOUR, 7, {"norm": "group"}),
        NetworkSpec("resnet14", COLOUR, 7, {"norm": "none"}),
        NetworkSpec("conv-large-student", COLOUR, 7, {"norm": "group", "dropout": 0.1}),
    ],
)
def test_feature_goes_straight_into_the_classifier(spec: NetworkSpec) -> None:
    torch.manual_seed(0)
    network = build(spec).eval()
    assert NetworkSpec.from_json(spec.to_json()).to_json() == spec.to_json()
    samples = torch.randn(5, *spec.input_shape)
    with read_taps(network, [default_hint(spec)]) as reader:
        logits, features = reader(samples)
    (feature,) = features.values()
    assert logits.shape == (5, spec.classes)
    assert feature.ndim == 2
    assert torch.allclose(network.classifier(feature), logits)  # type: ignore[operator]
    # Samples do not see one another once the network is in eval mode.
    assert torch.allclose(network(samples[:1]), logits[:1], atol=1e-5)


def test_group_norm_never_mixes_samples() -> None:
    network = build(NetworkSpec("resnet8", COLOUR, 10, {"norm": "group"})).train()
    samples = torch.randn(4, *COLOUR)
    changed = samples.clone()
    changed[1:] = 1e6
    assert torch.allclose(network(samples)[0], network(changed)[0], atol=1e-5)
    batch = build(NetworkSpec("resnet8", COLOUR, 10, {"norm": "batch"})).train()
    assert not torch.allclose(batch(samples)[0], batch(changed)[0], atol=1e-5)


def test_every_listed_name_builds() -> None:
    for name in NETWORKS:
        if ":" not in name:
            shape = (9,) if name == "mlp-small" else COLOUR
            with torch.device("meta"):
                network = build(NetworkSpec(name, shape, 10))
                assert network(torch.empty(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (NetworkSpec("resnet21", COLOUR, 10), "6 n \\+ 2"),
        (NetworkSpec("cnn-smal", COLOUR, 10), "there are cnn-small"),
        (NetworkSpec("cnn-small", (12,), 10), "use mlp-small"),
        (NetworkSpec("cnn-small", (1, 8, 8), 10), "at least 13 x 13"),
        (NetworkSpec("cnn-small", COLOUR, 0), "0 classes"),
        (NetworkSpec("cnn-small", COLOUR, 10, {"depth": 3}), "options"),
        (NetworkSpec("resnet8", COLOUR, 10, {"norm": "layer"}), "batch, group, none"),
        (NetworkSpec("resnet8", COLOUR, 10, {"widths": (1, 2)}), "options|widths"),
        (NetworkSpec("mlp-small", (3,), 10, {"hidden": []}), "hidden"),
    ],
)
def test_mistakes(spec: NetworkSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(spec)
