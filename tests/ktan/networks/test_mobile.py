"""MobileNetV2 and ShuffleNetV2 in the literature's form, in every place that a network has."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from torch import Tensor
from torch.func import functional_call, grad, vmap

from ktan.data import Augment, Normalisation
from ktan.errors import UserError
from ktan.methods import METHODS, Binding
from ktan.methods.combination import parse_method
from ktan.networks import (
    NetworkSpec,
    build,
    count_parameters,
    default_hint,
    multiply_adds,
    stages_of,
)
from ktan.pairing import pair_taps
from ktan.tap_reader import tap_shapes
from ktan.taps import parse_tap
from ktan.teachers.live import LiveTeacher
from ktan.teachers.stack import Stack
from ktan.teachers.tsl_training import LayerRecipe
from ktan.training_data import BatchStream, TrainingData

SHAPE, CLASSES = (3, 32, 32), 5
MOBILE = NetworkSpec("mobilenetv2", SHAPE, CLASSES, {"width": 0.25})
SHUFFLE = NetworkSpec("shufflenetv2", SHAPE, CLASSES, {"width": 0.5})
NORMALISE = Normalisation((127.5,) * 3, (73.6,) * 3)


def grouped(spec: NetworkSpec) -> NetworkSpec:
    return NetworkSpec(spec.name, SHAPE, CLASSES, {**spec.options, "norm": "group"})


@pytest.mark.parametrize(
    ("name", "options", "classes", "parameters", "multiplications"),
    [
        # What RepDistiller's and mdistiller's code makes on CIFAR-100 (its models' 0.81 M and
        # 1.36 M) and on CIFAR-10, counted there.
        ("mobilenetv2-half", {}, 100, 812_836, 6_523_648),
        ("mobilenetv2-half", {}, 10, 697_546, 6_408_448),
        ("mobilenetv2", {}, 100, 2_353_060, 22_381_056),
        ("mobilenetv2", {"width": 1.4}, 10, 4_309_534, 42_071_792),
        ("shufflenetv2", {}, 100, 1_355_528, 44_504_448),
        ("shufflenetv2", {"width": 0.5}, 10, 351_466, 10_312_192),
        ("shufflenetv2", {"width": 1.5}, 10, 2_488_298, 93_669_888),
    ],
)
def test_sizes_are_the_literatures(
    name: str, options: Mapping[str, Any], classes: int, parameters: int, multiplications: int
) -> None:
    spec = NetworkSpec(name, SHAPE, classes, options)
    with torch.device("meta"):
        assert count_parameters(build(spec)) == parameters
    assert multiply_adds(spec) == multiplications


def test_shufflenets_units_by_hand() -> None:
    # Table 5's x1: per unit of c channels, two 1x1 and one 3x3 depthwise convolution on c / 2.
    def unit(channels: int, side: int) -> int:
        half = channels // 2
        return side**2 * (2 * half**2 + 9 * half)

    def down(before: int, after: int, side: int) -> int:
        half = after // 2
        short = side**2 * (9 * before + before * half)
        return short + 4 * side**2 * before * half + side**2 * (9 * half + half**2)

    total = 32**2 * 3 * 24 + 4**2 * 464 * 1024 + 1024 * 10
    for before, after, units, side in [(24, 116, 4, 16), (116, 232, 8, 8), (232, 464, 4, 4)]:
        total += down(before, after, side) + (units - 1) * unit(after, side)
    assert multiply_adds(NetworkSpec("shufflenetv2", SHAPE, 10)) == total


def test_maps_are_the_literatures() -> None:
    mobile = NetworkSpec("mobilenetv2-half", SHAPE, 10)
    shuffle = NetworkSpec("shufflenetv2", SHAPE, 10)
    paths = [f"features.layer{number}" for number in (2, 3, 5, 7)]
    shapes = tap_shapes(build(mobile), SHAPE, ["features.stem", *paths, "features"])
    assert list(shapes.values()) == [
        (16, 16, 16), (12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2), (1280,),
    ]  # fmt: skip
    paths = ["features.stem", *(f"features.layer{number}" for number in (1, 2, 3)), "features"]
    shapes = tap_shapes(build(shuffle), SHAPE, paths)
    assert list(shapes.values()) == [
        (24, 32, 32), (116, 16, 16), (232, 8, 8), (464, 4, 4), (1024,),
    ]  # fmt: skip


def test_a_shuffle_lets_no_half_stay_among_itself() -> None:
    """What enters one unit's kept half must reach both halves behind it."""
    network = build(SHUFFLE).eval()
    unit = network.get_submodule("features.layer1.1")
    inputs = torch.randn(1, 48, 4, 4)
    changed = inputs.clone()
    changed[:, :24] += 1
    with torch.no_grad():
        moved = (unit(inputs) != unit(changed)).flatten(2).any(dim=2)[0]
    assert moved.tolist() == [True, False] * 24


@pytest.mark.parametrize("spec", [MOBILE, SHUFFLE], ids=lambda spec: spec.name)
@pytest.mark.parametrize("norm", ["group", "none"])
def test_samples_never_meet_and_signals_keep_their_size(spec: NetworkSpec, norm: str) -> None:
    torch.manual_seed(0)
    network = build(NetworkSpec(spec.name, SHAPE, CLASSES, {**spec.options, "norm": norm})).train()
    samples = torch.randn(3, *SHAPE)
    changed = samples.clone()
    changed[1:] = 1e3
    logits = network(samples)
    assert torch.allclose(logits[0], network(changed)[0], atol=1e-4)
    assert 1e-2 < float(logits.std()) < 1e2


@pytest.mark.parametrize("spec", [MOBILE, SHUFFLE], ids=lambda spec: spec.name)
def test_gradients_of_single_records_are_those_that_dp_sgd_clips(spec: NetworkSpec) -> None:
    torch.manual_seed(0)
    network = build(grouped(spec))
    samples, labels = torch.randn(3, *SHAPE), torch.tensor([0, 1, 2])
    values = {name: value.detach().clone() for name, value in network.named_parameters()}

    def loss(own: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, own, (sample[None],)), label[None])

    expected = vmap(grad(loss), in_dims=(None, 0, 0))(values, samples, labels)
    logits = GradSampleModule(network, loss_reduction="sum")(samples)
    F.cross_entropy(logits, labels, reduction="sum").backward()
    for name, parameter in network.named_parameters():
        found = parameter.grad_sample
        assert float((found - expected[name]).norm()) < 1e-3 * float(expected[name].norm()), name


@pytest.mark.parametrize("spec", [MOBILE, SHUFFLE], ids=lambda spec: spec.name)
def test_an_ensemble_of_them_is_stacked(spec: NetworkSpec) -> None:
    spec = grouped(spec)
    path = default_hint(spec)
    shapes = tap_shapes(build(spec), SHAPE, [path])
    hint = parse_tap(f"hint={path}").with_shape(CLASSES, shapes)
    stack = Stack(spec, [hint], torch.device("cpu"))
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(build(spec).eval())
    state = {
        name: torch.stack([network.state_dict()[name] for network in networks])
        for name in networks[0].state_dict()
    }
    samples = torch.randn(2, *SHAPE)
    found = stack.read(state, samples)[hint.name]
    with torch.no_grad():
        for network, own in zip(networks, found, strict=True):
            features = network.get_submodule("features")(samples)
            torch.testing.assert_close(own, features, rtol=1e-4, atol=1e-5)


PAIRS = [(MOBILE, SHUFFLE), (SHUFFLE, MOBILE)]
WITHOUT_STAGES = {"local", "dkd", "soft-logits", "fixmatch"}
STAGED = [name for name in METHODS if name not in {*WITHOUT_STAGES, "fitnet-two-stage"}]
"""The two-stage form finds what fitnet does."""


@pytest.fixture(scope="module")
def teachers() -> dict[str, LiveTeacher]:
    """By the network's name; each reads what the last test asked for."""
    torch.manual_seed(0)
    return {
        spec.name: LiveTeacher([build(spec)], spec, NORMALISE, (), precision="float32")
        for spec in (MOBILE, SHUFFLE)
    }


@pytest.mark.parametrize(
    ("name", "teacher_spec", "spec"),
    # By turns: as many methods read one as the other.
    [(name, *PAIRS[number % 2]) for number, name in enumerate(STAGED)],
)
def test_every_method_finds_its_stages(
    name: str, teacher_spec: NetworkSpec, spec: NetworkSpec, teachers: Mapping[str, LiveTeacher]
) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, *SHAPE), generator=generator).to(torch.uint8)
    labels = torch.tensor([0, 1, 2])
    teacher = teachers[teacher_spec.name]
    method = parse_method(name, {})
    taps = {tap.name: tap for tap in method.teacher_taps(teacher.stages)}
    teacher.read(list(taps.values()), spec)
    teacher.prepare(images, labels, LayerRecipe(steps=1, batch=3, precision="float32"))
    student, stages = build(spec), stages_of(spec)
    objective = method.build(
        Binding(
            student=student,
            input_shape=SHAPE,
            classes=CLASSES,
            taps=teacher.taps,
            paths=pair_taps(teacher.taps, student, SHAPE, stages),
            answers=teacher.answer(images),
            stages=stages,
            teacher_stages=teacher.stages,
        )
    )
    data = TrainingData(
        images[:1], labels[:1], images[1:], answered_labels=labels[1:], teacher=teacher,
        unlabelled=images if objective.unlabelled else None,
    )  # fmt: skip
    stream = BatchStream(
        data, labelled_batch=1, answered_batch=2, unlabelled_batch=2, seed=0,
        device=torch.device("cpu"), normalise=NORMALISE, augment=Augment("none"),
    )  # fmt: skip
    batch = stream.batch(0)
    losses = objective.losses("student", objective.observe(student, batch), batch)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite()
    first = student.get_parameter("features.stem.0.weight").grad
    assert first is not None
    assert first.isfinite().all()
    assert first.any()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenetv2", {"width": 0.01}, "give 0.0625 to 16"),
        ("mobilenetv2", {"width": "half"}, "give 0.0625 to 16"),
        ("shufflenetv2", {"width": 0.7}, "choose 0.5, 1, 1.5, 2"),
        ("shufflenetv2", {"norm": "layer"}, "batch, group, none"),
    ],
)
def test_mistakes(name: str, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(NetworkSpec(name, SHAPE, CLASSES, options))


def test_too_small_images() -> None:
    with pytest.raises(UserError, match="at least 16 x 16"):
        build(NetworkSpec("mobilenetv2-half", (1, 12, 12), CLASSES))
    assert build(NetworkSpec("mobilenetv2-half", (1, 16, 28), CLASSES))(
        torch.zeros(2, 1, 16, 28)
    ).shape == (2, CLASSES)
