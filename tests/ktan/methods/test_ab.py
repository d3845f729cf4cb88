"""AB: the boundary alone through its connectors, then cross-entropy."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ktan.errors import UserError
from ktan.methods.activation_boundary import ActivationBoundary
from ktan.methods.combination import parse_method
from ktan.schedule import in_rounds
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import EQUAL, SHAPE, WIDER, Scene, network, scene, taught_teacher


def by_hand(found: Scene) -> Tensor:
    """Σ 3e-3·2^(i − n + 1)·boundary / B, from the connectors' values and the teacher's signs."""
    view = found.view()
    total = torch.zeros(())
    connectors = list(found.objective.owned["student"].values())
    for number, (path, connect, signs) in enumerate(
        zip(found.objective.paths, connectors, found.batch.answers.values(), strict=True)
    ):
        s = connect(view.answered_features(path))
        wrong = torch.where(signs > 0, (s - 1).square() * (s <= 1), (s + 1).square() * (s > -1))
        total = total + 3e-3 * 2.0 ** (number - 2) * wrong.sum() / len(s)
    return total


@pytest.mark.parametrize("teacher", [EQUAL, WIDER])
def test_loss_is_the_papers_over_all_stages(teacher: tuple[int, ...]) -> None:
    found = scene(ActivationBoundary(), teacher=teacher)
    assert [set(v.unique().tolist()) for v in found.batch.answers.values()] == [{-1.0, 1.0}] * 3
    torch.testing.assert_close(found.loss("boundary"), by_hand(found))


def test_it_reads_what_goes_into_the_last_activation() -> None:
    """A ReLU's output is never negative: its signs would say nothing below zero."""
    found = scene(ActivationBoundary())
    assert all(path.endswith("relu.input") for path in found.objective.paths)
    assert all(f.min() < 0 < f.max() for f in found.view().features.values())


def test_gradient_reaches_the_maps_and_connectors_and_nothing_else() -> None:
    found = scene(ActivationBoundary())
    reached = set(found.gradients("boundary"))
    student = {f"{name}" for name, _ in found.student.named_parameters() if "features" in name}
    assert student <= reached
    assert sum(name.startswith("connector.") for name in reached) == 3 * 3
    assert not any("classifier" in name for name in reached)
    assert not any(name.startswith("connector.") for name in found.gradients("local"))
    assert not taught_teacher(found)


def test_a_student_beyond_the_margin_on_the_teachers_side_has_no_loss() -> None:
    """The teacher's own maps through connectors that only scale them up."""
    found = scene(ActivationBoundary(), same=True)
    for connect in found.objective.owned["student"].values():
        connect.eval()
        with torch.no_grad():
            connect.project.weight.copy_(torch.eye(len(connect.project.weight))[..., None, None])
            connect.norm.weight.fill_(1e6)
    view = found.view()
    near = min(f.abs().min().item() for f in view.features.values())
    assert near > 1e-6
    assert found.loss("boundary").item() == 0


def test_noise_on_the_signs_leaves_the_gradient_unbiased_unless_clamped() -> None:
    clean = scene(ActivationBoundary())
    more, less = (
        clean.answered(lambda v, side=side: v + side * 0.5 * v.roll(1, 0)) for side in (1, -1)
    )
    expected = clean.gradients("boundary")
    pair = more.gradients("boundary"), less.gradients("boundary")
    for name, gradient in expected.items():
        torch.testing.assert_close(
            (pair[0][name] + pair[1][name]) / 2, gradient, atol=1e-6, rtol=1e-4
        )
    clamped = scene(ActivationBoundary(clamp=True)).answered(lambda v: 3 * v)
    torch.testing.assert_close(clamped.loss("boundary"), clean.loss("boundary"))


def test_stages() -> None:
    found = scene(ActivationBoundary(initialisation=0.25))
    first, last = found.objective.stages
    assert (first.share, last.share) == (0.25, 0.75)
    active = [
        set(found.objective.losses("student", found.view(), found.batch, stage))
        for stage in (first, last)
    ]
    assert active == [{"boundary"}, {"local"}]
    both = scene(parse_method("ab+soft-logits", {}))
    last = both.objective.stages[-1]
    terms = both.objective.losses("student", both.view(), both.batch, last)
    assert set(terms) == {"local", "kd"}
    rounds = in_rounds(found.objective.stages, 2)
    assert [stage.runs("boundary") for stage in rounds] == [True, False, False]
    with pytest.raises(UserError, match="initialisation is 1"):
        scene(ActivationBoundary(initialisation=1.0))


def test_reduced_precision_stays_close() -> None:
    found = scene(ActivationBoundary())
    low = found.loss("boundary", bf16=True)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(found.loss("boundary").item(), rel=0.05)


def test_a_teacher_without_signs_is_refused() -> None:
    taps = {"hint": AnswerTap("hint", "hint", (4, 8, 8))}
    with pytest.raises(UserError, match=r"ab needs signs .* answers hint"):
        bind(ActivationBoundary(), network(EQUAL, 0), SHAPE, taps, {}, {})


def test_a_smaller_map_of_the_teachers_is_met_at_its_size() -> None:
    """A student at another resolution: the connector brings it there."""
    found = scene(ActivationBoundary())
    tap = AnswerTap("signs", "signs", (5, 4, 4))
    student = network(EQUAL, 0)
    answers = {"signs": torch.ones(6, 5, 4, 4)}
    path = "features.layer1.0.relu.input"
    objective = bind(ActivationBoundary(), student, SHAPE, {"signs": tap}, {"signs": path}, answers)
    part = replace(found.batch, answers=answers)
    view = objective.observe(student, part)
    assert bool(objective.losses("student", view, part)["boundary"].isfinite())


def test_a_vector_of_the_students_is_refused() -> None:
    taps = {"signs": AnswerTap("signs", "signs", (4, 8, 8))}
    with pytest.raises(UserError, match=r"features puts out \[8\], and a map"):
        bind(ActivationBoundary(), network(EQUAL, 0), SHAPE, taps, {"signs": "features"}, {})
