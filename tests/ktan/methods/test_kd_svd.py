"""KD-SVD: relations of singular vectors, their gradient clipped to the task's."""

import pytest
import torch

from ktan.errors import UserError
from ktan.losses import singular_vector_loss
from ktan.methods.kd_svd import SingularVectors
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import EQUAL, SHAPE, WIDER, network, scene, taught_teacher

LAYERS = ("features.layer1", "features.layer2", "features.layer3")


def test_loss_is_that_of_the_maps_of_all_stages() -> None:
    found = scene(SingularVectors(svd_weight=2.0))
    view = found.view()
    expected = 2 * singular_vector_loss(
        [view.answered_features(path) for path in LAYERS], list(found.batch.answers.values())
    )
    torch.testing.assert_close(found.loss("relations"), expected)
    assert expected.item() > 1e-3


def test_a_student_that_is_its_teacher_has_no_loss() -> None:
    found = scene(SingularVectors(), same=True)
    assert found.loss("relations").item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("teacher", "connectors"), [(EQUAL, 0), (WIDER, 3)])
def test_gradient_reaches_the_maps_and_connectors_and_nothing_else(
    teacher: tuple[int, ...], connectors: int
) -> None:
    found = scene(SingularVectors(), teacher=teacher)
    reached = set(found.gradients("relations"))
    assert {name for name, _ in found.student.named_parameters() if "features" in name} <= reached
    assert sum(name.startswith("connector.") for name in reached) == connectors
    assert not any("classifier" in name for name in reached)
    assert not taught_teacher(found)


def test_the_gradient_is_clipped_to_the_norm_of_the_tasks() -> None:
    """By hand: the task's gradient, and the relations' scaled down to its norm."""
    found = scene(SingularVectors(svd_weight=1000.0))
    parameters = list(found.student.parameters())
    losses = found.objective.losses("student", found.view(), found.batch)
    parts = [
        torch.autograd.grad(losses[name], parameters, retain_graph=True, allow_unused=True)
        for name in ("local", "relations")
    ]
    task, relations = (
        [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, part, strict=True)]
        for part in parts
    )
    sizes = [torch.cat([g.flatten() for g in part]).norm() for part in (task, relations)]
    assert sizes[1] > sizes[0]
    found.objective.backward(losses, parameters)
    clipped = [
        one + other * sizes[0] / sizes[1] for one, other in zip(task, relations, strict=True)
    ]
    for parameter, expected in zip(parameters, clipped, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    found.student.zero_grad()
    found.objective(found.student, found.batch).backward()
    for parameter, expected in zip(parameters, clipped, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_without_clipping_the_gradient_is_the_sum() -> None:
    found = scene(SingularVectors(clip=False))
    parameters = list(found.student.parameters())
    losses = found.objective.losses("student", found.view(), found.batch)
    expected = torch.autograd.grad(sum(losses.values()), parameters, retain_graph=True)  # type: ignore[arg-type]
    found.objective.backward(losses, parameters)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_reduced_precision_stays_close() -> None:
    found = scene(SingularVectors())
    low = found.loss("relations", bf16=True)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(found.loss("relations").item(), rel=0.1)


def test_what_it_cannot_do_is_refused() -> None:
    student = network(EQUAL, 0)
    noisy = {
        name: AnswerTap(name, "hint", (4, 8, 8), noise_sd=noise)
        for name, noise in (("hint", 0.0), ("hint.two", 0.1))
    }
    with pytest.raises(UserError, match="two whole maps without noise"):
        bind(SingularVectors(), student, SHAPE, noisy, dict.fromkeys(noisy, LAYERS[0]), {})
    with pytest.raises(UserError, match="set clip=false"):
        scene(SingularVectors(local_weight=0.0))
    with pytest.raises(UserError, match="at least 1"):
        scene(SingularVectors(vectors=0))


def test_a_vector_of_the_students_is_refused() -> None:
    taps = {f"hint.{i}": AnswerTap(f"hint.{i}", "hint", (4, 8, 8)) for i in (1, 2)}
    with pytest.raises(UserError, match=r"features puts out \[8\], and a map"):
        bind(SingularVectors(), network(EQUAL, 0), SHAPE, taps, dict.fromkeys(taps, "features"), {})
