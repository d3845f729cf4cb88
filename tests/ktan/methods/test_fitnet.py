"""FitNet in both forms: hints at once with everything else, or alone and first."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.methods import Method
from ktan.methods.combination import parse_method
from ktan.methods.fitnet import FitNet
from ktan.methods.fitnet_two_stage import TwoStageFitNet
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import EQUAL, SHAPE, WIDER, Given, scene, taught_teacher
from tests.ktan.methods.references import inputs, reference

FORMS: list[tuple[Method, str]] = [(FitNet(), "hint"), (TwoStageFitNet(), "initial hint")]


@pytest.mark.parametrize(("method", "term"), FORMS)
def test_loss_is_the_public_one_on_the_teachers_own_scale(method: Method, term: str) -> None:
    """With a connector that does what `HintScale` does, times the variance by which it divides."""
    given = inputs()
    student = Given([given["student_map_2"]])
    answers = {"probabilities": torch.ones(2, 3) / 3, "hint": given["teacher_map_2"]}
    taps = {
        "probabilities": AnswerTap("probabilities", "probabilities", (3,)),
        "hint": AnswerTap("hint", "hint", (5, 4, 4)),
    }
    objective = bind(method, student, SHAPE, taps, {"hint": "maps.0"}, answers)
    part = replace(scene(method, samples=2).batch, answers=answers)
    scale = identity(objective.owned["student"]["hint"], answers["hint"])
    loss = objective.losses("student", objective.observe(student, part), part)[term]
    weight = method.hint_weight  # type: ignore[attr-defined]
    expected = reference("fitnet", "RepDistiller", stage=2).value
    assert loss.item() / weight * scale**2 == pytest.approx(expected, rel=1e-5)


def identity(connect: nn.Module, hints: Tensor) -> float:
    """Makes a connector say F_s on the unit scale of these hints; returns their scale."""
    centre = hints.mean(dim=(0, 2, 3))
    scale = (hints - centre[:, None, None]).square().mean().sqrt()
    with torch.no_grad():
        connect.project.weight.copy_((torch.eye(len(centre)) / scale)[..., None, None])  # type: ignore[union-attr, operator]
        connect.project.bias.copy_(-centre / scale)  # type: ignore[union-attr, operator]
    return scale.item()


@pytest.mark.parametrize("teacher", [EQUAL, WIDER])
@pytest.mark.parametrize(("method", "term"), FORMS)
def test_loss_by_hand(method: Method, term: str, teacher: tuple[int, ...]) -> None:
    found = scene(method, teacher=teacher)
    (answer,) = (v for n, v in found.batch.answers.items() if n.startswith("hint"))
    centre = answer.mean(dim=(0, 2, 3), keepdim=True)
    target = (answer - centre) / (answer - centre).square().mean().sqrt()
    (connect,) = found.objective.owned["student"].values()
    feature = found.view().answered_features("features.layer2")
    own = torch.nn.functional.conv2d(feature, connect.project.weight, connect.project.bias)
    weight = method.hint_weight  # type: ignore[attr-defined]
    torch.testing.assert_close(found.loss(term), weight * (own - target).square().mean())


@pytest.mark.parametrize(("method", "term"), FORMS)
def test_a_student_that_is_its_teacher_has_no_loss(method: Method, term: str) -> None:
    found = scene(method, same=True)
    (answer,) = (v for n, v in found.batch.answers.items() if n.startswith("hint"))
    (connect,) = found.objective.owned["student"].values()
    identity(connect, answer)
    assert found.loss(term).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("method", "term"), FORMS)
def test_the_hint_reaches_the_student_up_to_the_guided_layer(method: Method, term: str) -> None:
    found = scene(method)
    reached = found.gradients(term)
    parts = ("features.stem", "features.layer1", "features.layer2")
    up_to = {n for n, _ in found.student.named_parameters() if n.startswith(parts)}
    connectors = {name for name in reached if name.startswith("connector.")}
    assert set(reached) == up_to | connectors
    assert len(connectors) == 2
    assert set(found.gradients("kd")) == {name for name, _ in found.student.named_parameters()}
    assert not taught_teacher(found)


@pytest.mark.parametrize(("method", "term"), FORMS)
def test_noise_on_the_hint_leaves_the_gradient_unbiased(method: Method, term: str) -> None:
    clean = scene(method)
    more, less = (
        clean.answered(lambda v, side=side: v + side * v.roll(1, 0)).gradients(term)
        for side in (1, -1)
    )
    for name, gradient in clean.gradients(term).items():
        mean = (more[name] + less[name]) / 2
        torch.testing.assert_close(mean, gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("method", "term"), FORMS)
def test_reduced_precision_stays_close(method: Method, term: str) -> None:
    found = scene(method)
    assert found.loss(term, bf16=True).dtype == torch.float32
    low = found.loss(term, bf16=True).item()
    assert low == pytest.approx(found.loss(term).item(), rel=0.05)


def test_the_papers_form_has_the_hint_first_and_alone() -> None:
    found = scene(TwoStageFitNet(initialisation=0.25))
    assert [stage.share for stage in found.objective.stages] == [0.25, 0.75]
    active = [
        set(found.objective.losses("student", found.view(), found.batch, stage))
        for stage in found.objective.stages
    ]
    assert active == [{"initial hint"}, {"local", "kd"}]
    assert [stage.terms for stage in scene(FitNet()).objective.stages] == [None]
    with pytest.raises(UserError, match="initialisation is 0"):
        scene(TwoStageFitNet(initialisation=0.0))


def test_in_combination_only_the_initial_hint_rests_afterwards() -> None:
    both = scene(parse_method("fitnet-two-stage+fitnet", {}))
    first, last = both.objective.stages
    active = [
        set(both.objective.losses("student", both.view(), both.batch, stage))
        for stage in (first, last)
    ]
    assert active == [{"initial hint"}, {"local", "kd", "hint"}]
