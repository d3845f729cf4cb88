"""MEAL: the public values, the game in the right direction, stages, noise, several teachers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.losses.stage_judges import deceit_loss, judge_accuracy, judge_loss
from ktan.methods import Batch, Objective
from ktan.methods.meal import (
    MEAL,
    pooled,
    pooled_shape,
    stage_judge,
)
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import WIDER, Scene, scene, taught_teacher
from tests.ktan.methods.references import inputs, reference

CLASSES = 5


class Outputs(nn.Module):
    """A student whose parameters are what it puts out: a hint and logits."""

    def __init__(self, hint: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.hint, self.logits = nn.Parameter(hint), nn.Parameter(logits)
        self.features = nn.Identity()

    def forward(self, samples: Tensor) -> Tensor:
        self.features(self.hint * 1)
        return self.logits * 1


def two_stages(
    method: MEAL, *, noise_sd: float = 0.0, teacher: Tensor | None = None
) -> tuple[Outputs, Objective, Batch]:
    """The stored inputs: a hint [4, 6], compared as it is, and logits [4, 5]."""
    stored = inputs()
    student = Outputs(stored["student_stage_1"], stored["student_stage_2"])
    taps = {
        "logits": AnswerTap("logits", "logits", (CLASSES,), noise_sd),
        "hint": AnswerTap("hint", "hint", (6,), noise_sd),
    }
    # Of mean 0 and variance 1, so that hints are on their scale already.
    at_hand = {"hint": torch.tensor([[1.0], [-1.0]]).expand(2, 6)}
    at_hand["logits"] = at_hand["hint"][:, :CLASSES]
    objective = bind(method, student, (1,), taps, {"hint": "features"}, at_hand, classes=CLASSES)
    modules: Any = objective.owned["student"]
    project = modules["hint"].project
    with torch.no_grad():
        project.weight.copy_(torch.eye(6))
        project.bias.zero_()
    hint = stored["teacher_stage_1"] if teacher is None else teacher
    answers = {"logits": stored["teacher_stage_2"], "hint": hint}
    samples, labels = torch.zeros(4, 1), torch.full((4,), -1)
    return student, objective, Batch(samples[:0], labels[:0], samples, answers, labels)


def losses(student: nn.Module, objective: Objective, batch: Batch) -> dict[str, Tensor]:
    return objective.losses("student", objective.observe(student, batch), batch)


@pytest.mark.parametrize(
    ("distance", "public"), [("kl", "CrossEntropy"), ("l1", "L1_soft"), ("l2", "L2_soft")]
)
def test_similarity_and_its_gradient_are_those_of_public_code(distance: str, public: str) -> None:
    method = MEAL(distance=distance, temperature=1.0, stage_weight=0.1)  # type: ignore[arg-type]
    student, objective, batch = two_stages(method)
    loss = losses(student, objective, batch)["similarity"]
    expected = reference("meal", f"({public})")
    assert loss.item() == pytest.approx(expected.value, rel=1e-5)
    gradients = torch.autograd.grad(loss, [student.hint, student.logits])
    for number, gradient in enumerate(gradients, start=1):
        norm = expected.gradient_norms[f"student_stage_{number}"]
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-4)


def test_the_judges_loss_is_that_of_public_code_before_its_last_relu() -> None:
    stored = inputs()

    def public(outputs: Tensor) -> Tensor:
        for number in (1, 2, 3):
            weight, bias = (stored[f"discriminator_{what}_{number}"] for what in ("weight", "bias"))
            outputs = nn.functional.linear(outputs.relu() if number > 1 else outputs, weight, bias)
        return outputs

    student = stored["student_stage_1"].requires_grad_()
    loss = judge_loss(public(student).relu(), public(stored["teacher_stage_1"]).relu())
    expected = reference("meal", "discriminatorLoss")
    assert loss.item() == pytest.approx(expected.value, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.norm().item() == pytest.approx(
        expected.gradient_norms["student_stage_1"], rel=1e-4
    )
    assert (public(student) < 0).any()


def test_a_judge_narrows_to_two_scores_of_either_sign() -> None:
    torch.manual_seed(0)
    judge = stage_judge(1024)
    widths = [layer.out_features for layer in judge if isinstance(layer, nn.Linear)]  # type: ignore[attr-defined]
    assert widths == [512, 256, 2]
    scores = judge(torch.randn(64, 1024))
    assert (scores < 0).any()
    assert (scores > 0).any()


def test_the_student_descends_the_opposite_of_what_its_judge_descends() -> None:
    """The bug of the public code: one loss for both, and the student helps its opponent."""
    torch.manual_seed(0)
    scores = torch.randn(8, 2, requires_grad=True)
    (down,) = torch.autograd.grad(judge_loss(scores, torch.randn(8, 2)), scores)
    (own,) = torch.autograd.grad(deceit_loss(scores), scores)
    assert (down.sign() == -own.sign()).all()


def game(rest: float) -> tuple[Scene, MEAL]:
    method = MEAL(similarity_weight=0.0, discriminator_rest=rest, stage_size=64)
    return scene(method, samples=32), method


def turn(player: str, found: Scene, steps: int) -> None:
    own = list(found.student.parameters()) if player == "student" else []
    parameters = [*own, *found.objective.learnables(player)]
    optimiser = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(steps):
        view = found.view()
        with found.objective.turn_of(player):
            optimiser.zero_grad()
            terms = found.objective.losses(player, view, found.batch)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def figures(found: Scene) -> tuple[float, float]:
    """The judges' accuracy and loss."""
    view = found.view()
    accuracy = found.objective.measures(view, found.batch)["stage_discriminator_accuracy"]
    loss = found.objective.losses("discriminator", view, found.batch)["stage_discriminator"]
    return accuracy.item(), loss.item()


def test_judges_turns_raise_their_accuracy_and_the_students_turns_lower_it() -> None:
    found, _ = game(rest=1.0)
    before, _ = figures(found)
    turn("discriminator", found, 40)
    told, loss = figures(found)
    assert told > before + 0.1
    turn("student", found, 1)
    assert figures(found)[1] > loss
    turn("student", found, 40)
    assert figures(found)[0] < told - 0.1


def test_judges_that_are_well_ahead_rest() -> None:
    found, _ = game(rest=0.7)
    turn("discriminator", found, 40)
    rested, _ = figures(found)
    tireless, _ = game(rest=1.0)
    turn("discriminator", tireless, 40)
    assert rested < figures(tireless)[0]


def test_a_student_that_is_its_teacher_has_the_teachers_entropy_and_cannot_be_told() -> None:
    same = scene(MEAL(stage_weight=0.0), same=True)
    target = (same.batch.answers["logits"] / 4).softmax(dim=1)
    entropy = -16 * (target * target.log()).sum(dim=1).mean()
    torch.testing.assert_close(same.loss("similarity"), entropy)
    pull = torch.stack([g.norm() for g in same.gradients("similarity").values()]).max()
    other = scene(MEAL(stage_weight=0.0))
    assert (
        pull < 1e-4 * torch.stack([g.norm() for g in other.gradients("similarity").values()]).max()
    )
    accuracy = same.objective.measures(same.view(), same.batch)["stage_discriminator_accuracy"]
    assert accuracy.item() == 0.5
    for distance in ("l1", "l2"):
        method = MEAL(stage_weight=0.0, distance=distance)
        assert scene(method, same=True).loss("similarity").item() == pytest.approx(0, abs=1e-6)


def test_gradients_reach_student_and_connectors_or_judges_and_nothing_else() -> None:
    found = scene(MEAL(stage_size=64), teacher=WIDER)
    whole = {name for name, _ in found.student.named_parameters()}
    for term in ("similarity", "stage_adversarial"):
        reached = set(found.gradients(term))
        assert whole <= reached
        connectors = {name for name in reached if ".student." in name}
        # A softmax takes no notice of what is added to all of a stage.
        assert len(connectors) == 2 * 3
    assert not {name for name in found.gradients("similarity") if ".discriminator." in name}
    loss = found.objective.losses("discriminator", found.view(), found.batch)
    own = [*found.student.parameters(), *found.objective.learnables("student")]
    gradients = torch.autograd.grad(
        loss["stage_discriminator"],
        [*own, *found.objective.learnables("discriminator")],
        allow_unused=True,
    )
    assert all(gradient is None for gradient in gradients[: len(own)])
    assert all(gradient is not None for gradient in gradients[len(own) :])
    assert not taught_teacher(found)


def test_without_labels_by_default_and_with_them_on_demand() -> None:
    plain = scene(MEAL(stage_weight=0.0))
    names = {term.name for term in plain.objective.terms}
    assert names == {"similarity", "stage_adversarial", "stage_discriminator"}
    found = scene(MEAL(stage_weight=0.0, local_weight=0.5))
    logits = found.view().known_logits
    expected = 0.5 * nn.functional.cross_entropy(logits, found.batch.all_labels)
    torch.testing.assert_close(found.loss("local"), expected)


def test_stages_are_pooled_to_about_one_size() -> None:
    assert pooled_shape((16, 32, 32), 1024) == (16, 8, 8)
    assert pooled_shape((2048, 7, 7), 1024) == (2048, 1, 1)
    assert pooled_shape((4, 2, 2), 1024) == (4, 2, 2)
    assert pooled_shape((640,), 10) == (640,)
    feature = torch.rand(2, 3, 4, 4)
    blocks = feature.reshape(2, 3, 2, 2, 2, 2).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(pooled(feature, (3, 2, 2)), blocks)


def test_a_served_response_is_enough() -> None:
    """As the reference's command for ensembles: the last stage only."""
    found = scene(MEAL())
    tap = AnswerTap("probabilities", "probabilities", (3,), 0.1, temperature=2.0)
    answers = {"probabilities": torch.full((6, 3), 1 / 3)}
    objective = bind(
        MEAL(denoise="none"), found.student, (3, 8, 8), {"probabilities": tap}, {}, answers
    )
    batch = replace(found.batch, answers=answers)
    view = objective.observe(found.student, batch)
    terms = objective.losses("student", view, batch)
    expected = -4 * (view.answered_logits / 2).log_softmax(dim=1).mean(dim=1).mean()
    torch.testing.assert_close(terms["similarity"], expected)
    assert objective.paths == ()
    assert terms["stage_adversarial"].isfinite()


def test_noise_on_hints_and_logits_leaves_the_gradient_unbiased() -> None:
    def gradients(scale: float) -> list[Tensor]:
        student, objective, batch = two_stages(MEAL(), noise_sd=0.5)
        generator = torch.Generator().manual_seed(1)
        answers = {
            name: value + scale * torch.randn(value.shape, generator=generator)
            for name, value in batch.answers.items()
        }
        loss = losses(student, objective, replace(batch, answers=answers))["similarity"]
        return list(torch.autograd.grad(loss, [student.hint, student.logits]))

    for clean, more, less in zip(*map(gradients, (0.0, 0.5, -0.5)), strict=True):
        torch.testing.assert_close((more + less) / 2, clean)
        assert not torch.allclose(more, clean)


def test_matched_noise_hides_the_teachers_noise_from_its_judge() -> None:
    """A student whose clean outputs are the teacher's: only unmatched noise tells them apart."""

    def told(published: float) -> float:
        torch.manual_seed(2)
        clean = torch.randn(512, CLASSES)
        student = Outputs(torch.zeros(512, 1), clean)
        taps = {"logits": AnswerTap("logits", "logits", (CLASSES,), published)}
        answers = {"logits": clean + 2.0 * torch.randn(512, CLASSES)}
        method = MEAL(discriminator_rest=1.0)
        objective = bind(method, student, (1,), taps, {}, answers, classes=CLASSES)
        samples, labels = torch.zeros(512, 1), torch.full((512,), -1)
        batch = Batch(samples[:0], labels[:0], samples, answers, labels)
        turn("discriminator", Scene(student, None, objective, batch), 150)  # type: ignore[arg-type]
        view = objective.observe(student, batch)
        return objective.measures(view, batch)["stage_discriminator_accuracy"].item()

    assert told(published=0.0) > 0.65
    assert told(published=2.0) < 0.6


def test_the_judge_rests_by_its_accuracy() -> None:
    right = torch.tensor([[2.0, -1.0], [0.5, 1.0]])
    assert judge_accuracy(right, right.flip(1)).item() == 0.5
    ahead = torch.tensor([[2.0, -1.0]], requires_grad=True)
    assert judge_loss(ahead, ahead.flip(1), 0.9).requires_grad
    (gradient,) = torch.autograd.grad(judge_loss(ahead, ahead.flip(1), 0.9), ahead)
    assert not gradient.any()


def test_reduced_precision_stays_close() -> None:
    found = scene(MEAL(stage_size=64))
    for term in ("similarity", "stage_adversarial"):
        low = found.loss(term, bf16=True)
        assert low.dtype == torch.float32
        assert low.item() == pytest.approx(found.loss(term).item(), rel=0.05)


def test_an_unknown_distance_is_refused() -> None:
    with pytest.raises(UserError, match="one of kl, l1, l2"):
        MEAL(distance="cosine")  # type: ignore[arg-type]
