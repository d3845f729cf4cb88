"""The teacher-to-student layer: the student's shape, what the teacher knows, and nothing else."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from ktan.connectors import ChannelScale
from ktan.data import Normalisation
from ktan.derivation import resized
from ktan.errors import UserError
from ktan.methods import Batch, Binding
from ktan.methods.ktan import KTAN
from ktan.networks import NetworkSpec, build, stages_of
from ktan.pairing import pair_taps
from ktan.taps import Tap, parse_tap, parse_taps
from ktan.teachers import tsl_training
from ktan.teachers.live import LiveTeacher
from ktan.teachers.tsl import TeacherToStudentLayer, new_layer, student_shape
from ktan.teachers.tsl_training import LayerRecipe

SHAPE, CLASSES = (1, 12, 12), 4
TEACHER = NetworkSpec("resnet8", SHAPE, CLASSES, {"widths": [4, 6, 8, 12]})
STUDENT = NetworkSpec("resnet8", SHAPE, CLASSES, {"widths": [2, 3, 4, 5]})
NORMALISE = Normalisation((0.0,), (1.0,))
LAST = stages_of(TEACHER).maps[-1]
RECIPE = LayerRecipe(steps=80, batch=32, precision="float32")


def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A pattern for each class, moved about and under noise."""
    patterns = torch.randn(CLASSES, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    samples = 0.5 * torch.randn(count, *SHAPE, generator=generator)
    places = torch.randint(7, (count, 2), generator=generator)
    for sample, label, (x, y) in zip(samples, labels, places.tolist(), strict=True):
        sample[:, y : y + 6, x : x + 6] += patterns[label]
    return samples, labels


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    torch.manual_seed(0)
    network = build(TEACHER)
    samples, labels = data(600, seed=2)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(120):
        rows = torch.arange(32 * step, 32 * step + 32) % len(samples)
        optimiser.zero_grad()
        F.cross_entropy(network(samples[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()


def live(network: nn.Module, *taps: Tap, count: int = 1) -> LiveTeacher:
    made = LiveTeacher([network] * count, TEACHER, NORMALISE, (), precision="float32")
    made.read(taps or (Tap("tsl", "tsl", LAST),), STUDENT)
    return made


def vector(answer: Tensor) -> Tensor:
    return answer.mean(dim=(2, 3)) if answer.ndim == 4 else answer


@pytest.mark.parametrize("shape", [(5, 6, 6), (5, 3, 3), (5, 12, 12), (5,)])
def test_the_layer_is_a_convolution_a_group_norm_and_a_relu(shape: tuple[int, ...]) -> None:
    weights = new_layer(7, shape, seed=1)
    feature = torch.randn(3, 7, 6, 6)
    convolution, norm = nn.Conv2d(7, 5, 3, padding=1, bias=False), nn.GroupNorm(1, 5)
    with torch.no_grad():
        convolution.weight.copy_(weights["convolution"])
        norm.weight.copy_(weights["scale"].uniform_(0.5, 2.0))
        norm.bias.copy_(weights["shift"].normal_())
    sized = resized(feature, shape[1:]) if len(shape) == 3 else feature
    expected = torch.relu(norm(convolution(sized)))
    expected = expected if len(shape) == 3 else expected.mean(dim=(2, 3))
    found = TeacherToStudentLayer(shape, weights)(feature)
    assert found.shape == (3, *shape)
    torch.testing.assert_close(found, expected)


def test_no_sample_sees_another() -> None:
    layer = TeacherToStudentLayer((5, 4, 4), new_layer(7, (5, 4, 4), seed=1))
    feature = torch.randn(3, 7, 6, 6)
    torch.testing.assert_close(layer(feature)[:1], layer(feature[:1]))


def test_the_form_of_a_tap() -> None:
    whole = parse_tap("tsl=features.layer3:16x8x8")
    assert (whole.kind, whole.path, whole.shape) == ("tsl", "features.layer3", (16, 8, 8))
    pooled = parse_tap("tsl=features.layer3:16")
    assert (pooled.shape, pooled.is_vector, whole.is_vector) == ((16,), True, False)
    for text in ("tsl=features.layer3:16x8x8", "tsl=features.layer3:16"):
        assert parse_tap(text).text == text
        assert Tap.from_json(parse_tap(text).to_json()) == parse_tap(text)
    names = [tap.name for tap in parse_taps(["tsl=a:4", "hint=a:4", "tsl=b:4x2x2"])]
    assert names == ["tsl", "hint", "tsl.b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tsl=a", "tsl=PATH:64x8x8"),
        ("tsl=a:map", "not a tap|student's shape"),
        ("tsl=a:4x4", "not a tap"),
        ("tsl=a:0", "at least one"),
        ("hint=a:4x2x2", "not a tap"),
        ("attention=a:4x2x2", "not a tap"),
        ("tsl=a,b:4", "of two paths"),
    ],
)
def test_a_tap_of_another_form_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_tap(text)


def test_only_a_map_can_stand_before_a_layer(teacher: nn.Module) -> None:
    with pytest.raises(UserError, match="made of maps"):
        live(teacher, parse_tap("tsl=features:4"))


def test_it_puts_out_the_shape_of_the_students_last_map(teacher: nn.Module) -> None:
    with torch.no_grad():
        own = build(STUDENT).features(torch.zeros(1, *SHAPE))  # type: ignore[operator]
    assert student_shape(STUDENT)[0] == own.shape[1] == 5
    assert live(teacher).taps["tsl"].shape == student_shape(STUDENT)
    with pytest.raises(UserError, match="name the student"):
        LiveTeacher([teacher], TEACHER, NORMALISE, (Tap("tsl", "tsl", LAST),))


def test_a_student_without_maps_gets_a_vector() -> None:
    assert student_shape(NetworkSpec("mlp-small", SHAPE, CLASSES, {"hidden": [9]})) == (9,)


@pytest.mark.parametrize("text", [None, f"tsl={LAST}:8"])
@pytest.mark.parametrize("labelled", [True, False])
def test_it_keeps_what_the_teacher_knows(
    teacher: nn.Module, text: str | None, labelled: bool
) -> None:
    """A linear model on the layer's pooled output is as good as the teacher, within 5 points."""
    made = live(teacher, parse_tap(text) if text else Tap("tsl", "tsl", LAST))
    samples, labels = data(400, seed=2)
    made.prepare(samples, labels if labelled else torch.full_like(labels, -1), RECIPE)
    test, truth = data(400, seed=3)
    fitted = LogisticRegression(max_iter=2000).fit(
        vector(made.answer(samples)["tsl"]).numpy(), labels.numpy()
    )
    kept = fitted.score(vector(made.answer(test)["tsl"]).numpy(), truth.numpy())
    with torch.no_grad():
        known = float((teacher(test).argmax(dim=1) == truth).float().mean())
    assert known > 0.8
    assert kept > known - 0.05


def test_the_teacher_stays_as_it_is_and_the_layers_are_frozen(teacher: nn.Module) -> None:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    made = live(teacher)
    made.prepare(*data(64, seed=2), dataclasses.replace(RECIPE, steps=3))
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    answer = made.answer_step(data(4, seed=3)[0], step=0)["tsl"]
    assert not answer.requires_grad
    assert float(answer.min()) == 0.0


def test_an_answer_without_a_trained_layer_is_refused(teacher: nn.Module) -> None:
    with pytest.raises(UserError, match="prepare"):
        live(teacher).answer(data(2, seed=3)[0])
    with pytest.raises(UserError, match="there are none"):
        live(teacher).prepare(torch.empty(0, *SHAPE), torch.empty(0, dtype=torch.int64), RECIPE)


def test_layers_are_the_recipes_and_are_kept(
    teacher: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dataclasses.replace(RECIPE, steps=4)
    samples, labels = data(64, seed=2)

    seen = []

    def watch(tap: Tap, steps: int) -> Iterator[int]:
        for step in range(steps):
            seen.append((tap.kind, step))
            yield step

    def answers(recipe: LayerRecipe, folder: Path | None = None) -> Tensor:
        made = live(teacher)
        made.prepare(samples, labels, recipe, folder=folder, watch=watch if folder else None)
        return made.answer(samples[:8])["tsl"]

    first = answers(short, tmp_path)
    assert seen == [("tsl", step) for step in range(4)]
    assert torch.equal(first, answers(short))
    assert not torch.equal(first, answers(dataclasses.replace(short, seed=1)))
    with monkeypatch.context() as patch:
        patch.setattr(tsl_training, "train_layers", None)
        patch.setattr("ktan.teachers.live.train_layers", None)
        assert torch.equal(first, answers(short, tmp_path))
        assert len(seen) == 4
        # Other labels, another recipe: what is kept is of another training.
        labels = labels.flip(0)
        with pytest.raises(TypeError):
            answers(short, tmp_path)


def test_several_teachers_have_a_layer_each_and_answer_their_mean(teacher: nn.Module) -> None:
    made = live(teacher, count=2)
    made.prepare(*data(64, seed=2), dataclasses.replace(RECIPE, steps=4))
    samples = data(6, seed=3)[0]
    parts = []
    for weights in made._layers[Tap("tsl", "tsl", LAST, shape=student_shape(STUDENT)).text]:
        with torch.no_grad():
            feature = teacher.features[:-2](samples)  # type: ignore[index, operator]
        parts.append(TeacherToStudentLayer(student_shape(STUDENT), weights)(feature))
    assert not torch.equal(*parts)
    torch.testing.assert_close(made.answer(samples)["tsl"], sum(parts) / 2)


def test_ktan_imitates_it_channel_by_channel(teacher: nn.Module) -> None:
    """Its hint loss is the squared error to the standardised map, with its gradient."""
    method = KTAN()
    stages = stages_of(TEACHER)
    taps = method.teacher_taps(stages)
    assert [tap.kind for tap in taps] == ["probabilities", "tsl"]
    made = LiveTeacher([teacher], TEACHER, NORMALISE, (), precision="float32")
    made.read(taps, STUDENT)
    samples, labels = data(64, seed=2)
    made.prepare(samples, labels, dataclasses.replace(RECIPE, steps=10))
    answers = made.answer(samples)
    torch.manual_seed(3)
    student = build(STUDENT)
    own = stages_of(STUDENT)
    paths = pair_taps(made.taps, student, SHAPE, own)
    name = taps[1].name
    assert paths == {name: (own.maps[-1],)}
    objective = method.build(Binding(student, SHAPE, CLASSES, made.taps, paths, answers, own))
    connectors = objective.owned["student"]
    assert [type(module) for module in connectors.values()] == [ChannelScale]  # type: ignore[operator]
    batch = Batch(samples[:0], labels[:0], samples, answers, labels)
    view = objective.observe(student, batch)
    found = objective.losses("student", view, batch)["hint"]
    target = answers[name]
    centre = target.mean(dim=(0, 2, 3), keepdim=True)
    target = (target - centre) / (target - centre).square().mean().sqrt()
    expected = method.hint_weight * F.mse_loss(view.features[own.maps[-1]], target)
    torch.testing.assert_close(found, expected)
    found.backward()  # type: ignore[no-untyped-call]
    assert student.features[0][0].weight.grad.abs().sum() > 0  # type: ignore[index, union-attr]
    assert student.classifier.weight.grad is None  # type: ignore[union-attr]
