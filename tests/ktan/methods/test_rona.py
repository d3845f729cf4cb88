"""RONA: its losses by hand, its course, and who plays in which stage."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.hints import HintScale
from ktan.methods import Batch, Objective, Stage
from ktan.methods.combination import merged, parse_method
from ktan.methods.ktan import KTAN
from ktan.methods.objective import Term
from ktan.methods.rona import RONA
from ktan.schedule import StagePlan
from ktan.teacher import AnswerTap
from ktan.trainer import TrainerOptions, train
from ktan.training_data import TrainingData
from tests.ktan.methods.bind import bind

TAPS = {
    "probabilities": AnswerTap("probabilities", "probabilities", (3,), 0.1, temperature=3.0),
    "hint": AnswerTap("hint", "hint", (4,), noise_sd=0.2),
}


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
        self.classifier = nn.Linear(4, 3)

    def forward(self, samples: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(samples))
        return logits


def batch(labelled: int = 4, answered: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(
        labelled=torch.randn(labelled, 5, generator=generator),
        labels=torch.randint(0, 3, (labelled,), generator=generator),
        answered=torch.randn(answered, 5, generator=generator),
        answers={
            "probabilities": torch.rand(answered, 3, generator=generator),
            "hint": 7 + 2 * torch.randn(answered, 4, generator=generator),
        },
        answered_labels=torch.full((answered,), -1),
    )


def bound(method: RONA) -> tuple[Student, Objective]:
    torch.manual_seed(0)
    student = Student()
    return student, bind(method, student, (5,), TAPS, {"hint": "features"}, batch().answers)


def test_every_term_by_hand() -> None:
    part = batch()
    method = RONA(hint_weight=2.0, kd_weight=0.5, local_weight=0.3, denoise="none")
    student, objective = bound(method)
    found = objective.losses("student", objective.observe(student, part), part)
    hints = part.answers["hint"]
    centre = hints.mean(dim=0)
    unit = (hints - centre) / (hints - centre).square().mean().sqrt()
    connected = objective.owned["student"]["hint"].project(student.features(part.answered))
    torch.testing.assert_close(found["hint"], 2.0 * 0.5 * (unit - connected).square().mean())
    log_p = torch.log_softmax(student(part.answered) / 3, dim=1)
    kd = -(part.answers["probabilities"] * log_p).sum(dim=1).mean() * 9
    torch.testing.assert_close(found["kd"], 0.5 * kd)
    local = F.cross_entropy(student(part.labelled), part.labels)
    torch.testing.assert_close(found["local"], 0.3 * local)
    assert set(found) == {"hint", "kd", "local"}


def test_a_student_that_says_what_the_teacher_says_has_no_hint_loss() -> None:
    part = batch()
    student, objective = bound(RONA())
    scale = HintScale.of(TAPS["hint"], part.answers["hint"])
    with torch.no_grad():
        connected = objective.owned["student"]["hint"](student.features(part.answered))
    same = {**part.answers, "hint": connected * scale.scale + scale.centre}
    part = replace(part, answers=same)
    found = objective.losses("student", objective.observe(student, part), part)
    assert found["hint"].item() == pytest.approx(0, abs=1e-10)


def test_hints_reach_no_classifier_and_opinions_no_connector() -> None:
    part = batch()
    for term, reached in (("hint", (True, False, True)), ("kd", (True, True, False))):
        student, objective = bound(RONA())
        objective.losses("student", objective.observe(student, part), part)[term].backward()
        parts = (student.features, student.classifier, objective.owned["student"])
        found = tuple(any(p.grad is not None for p in module.parameters()) for module in parts)
        assert found == reached, term


def active(stage: Stage, objective: Objective) -> set[str]:
    return {term.name for term in objective.terms if stage.runs(term.name)}


def test_the_course_is_the_papers() -> None:
    _, objective = bound(RONA())
    stages = objective.stages
    assert [stage.name for stage in stages[:4]] == ["hint", "warm-up", "distillation 1", "self 1"]
    assert [stage.share for stage in stages[:2]] == [40, 3]
    rounds = stages[2:]
    assert len(rounds) == 10
    assert [stage.share for stage in rounds[::2]] == [8] * 5
    assert [stage.share for stage in rounds[1::2]] == pytest.approx([8, 6.4, 4.8, 3.2, 1.6])
    assert active(stages[0], objective) == {"hint"}
    assert all(active(stage, objective) == {"local"} for stage in (stages[1], *rounds[1::2]))
    assert all(active(stage, objective) == {"kd"} for stage in rounds[::2])
    # The first portion of the queries is there from the beginning; four rounds ask for more.
    assert [stage.asks for stage in stages] == [
        False, False, False, False, *(True, False) * 4,
    ]  # fmt: skip
    plan = StagePlan(stages, 107)
    assert [plan.asked(step) for step in (0, 58, 59, 73, 106)] == [0, 0, 1, 2, 4]
    # One schedule for the hints, one for all that follows.
    assert (plan.at(0).schedule_steps, plan.at(40).schedule_steps) == (40, 67)
    assert plan.at(106).schedule_step == 66


def test_stages_without_a_share_are_left_out() -> None:
    short = RONA(rounds=2, hint_epochs=0.0, warm_up_epochs=0.0, self_epochs=0.0)
    assert [(s.name, s.asks, s.restarts) for s in short.stages] == [
        ("distillation 1", False, True),
        ("distillation 2", True, False),
    ]
    for wrong in ({"rounds": 0}, {"distillation_epochs": 0.0}, {"hint_epochs": -1.0}):
        with pytest.raises(UserError):
            RONA(**wrong)  # type: ignore[arg-type]


def test_with_an_opponent_it_plays_ktans_game_while_it_listens_to_the_teacher() -> None:
    part = batch()
    student, objective = bound(RONA(adversarial_weight=0.5, discriminator_rest=1.0))
    assert objective.players == ("discriminator", "student")
    by_name = {stage.name: active(stage, objective) for stage in objective.stages}
    game = {"adversarial", "discriminator"}
    assert by_name["hint"] == {"hint"} | game
    assert by_name["distillation 3"] == {"kd"} | game
    assert by_name["self 3"] == by_name["warm-up"] == {"local"}
    # The very terms of KTAN: with its weights (and half of its squared error) the same values.
    torch.manual_seed(0)
    other = Student()
    ktan = bind(
        KTAN(adversarial_weight=0.5, discriminator_rest=1.0), other, (5,), TAPS,
        {"hint": "features"}, part.answers,
    )  # fmt: skip
    torch.manual_seed(1)
    one = objective.losses("student", objective.observe(student, part), part)
    torch.manual_seed(1)
    two = ktan.losses("student", ktan.observe(other, part), part)
    torch.testing.assert_close(one["adversarial"], two["adversarial"])
    torch.testing.assert_close(one["hint"] / 0.5, two["hint"] / 0.3)


def test_a_discriminators_turn_raises_its_accuracy_and_a_students_turn_lowers_it() -> None:
    part = batch(answered=64)
    method = RONA(adversarial_weight=1.0, hint_weight=0.0, kd_weight=0.0, discriminator_rest=1.0)
    noiseless = {**TAPS, "hint": AnswerTap("hint", "hint", (4,))}
    torch.manual_seed(0)
    student = Student()
    objective = bind(method, student, (5,), noiseless, {"hint": "features"}, part.answers)
    stage = next(stage for stage in objective.stages if stage.name == "hint")

    def turn(player: str) -> float:
        own = list(student.parameters()) if player == "student" else []
        optimiser = torch.optim.Adam([*own, *objective.learnables(player)], lr=3e-3)
        for _ in range(60):
            view = objective.observe(student, part)
            with objective.turn_of(player):
                optimiser.zero_grad()
                losses = objective.losses(player, view, part, stage)
                torch.stack(list(losses.values())).sum().backward()
            optimiser.step()
        view = objective.observe(student, part)
        return objective.measures(view, part)["discriminator_accuracy"].item()

    told = turn("discriminator")
    assert told > 0.7
    assert turn("student") < told - 0.1


def test_other_methods_join_in_wherever_it_learns_by_labels_or_by_opinions() -> None:
    _, objective = bound(RONA(rounds=2))
    other = Objective([Term("more", "student", 1.0, lambda view, batch: view.logits.mean())])
    both = merged([objective, other], ["rona", "other"])
    joined = {stage.name: stage.runs("more") for stage in both.stages}
    assert not joined.pop("hint")
    assert len(joined) == 5
    assert all(joined.values())
    assert parse_method("rona", {"rounds": 3}).stages[-1].name == "self 3"  # type: ignore[attr-defined]


def test_losses_are_those_of_float32_under_bf16() -> None:
    part = batch(16, 16)
    student, objective = bound(RONA(adversarial_weight=0.1))
    torch.manual_seed(3)
    exact = objective.losses("student", objective.observe(student, part), part)
    with torch.autocast("cpu", torch.bfloat16):
        view = objective.observe(student, part)
    torch.manual_seed(3)
    for name, loss in objective.losses("student", view, part).items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.05, atol=0.02)


def test_a_run_asks_before_each_later_round_and_learns_from_all_it_was_answered() -> None:
    part = batch(8, 12)
    student, objective = bound(RONA(rounds=3, hint_epochs=4.0, warm_up_epochs=1.0))
    asked: list[tuple[int, int]] = []

    def data(count: int) -> TrainingData:
        answers = {name: values[:count] for name, values in part.answers.items()}
        return TrainingData(part.labelled, part.labels, part.answered[:count], answers)

    def ask(further: int, current: nn.Module) -> TrainingData:
        assert current is student
        asked.append((further, 4 + 4 * further))
        return data(4 + 4 * further)

    options = TrainerOptions(steps=45, labelled_batch=4, answered_batch=4, precision="float32",
                             device="cpu")  # fmt: skip
    normalise = Normalisation.neutral(part.labelled)
    history = train(
        student, objective, data(4), options, normalise=normalise, ask=ask, progress=False
    )
    assert asked == [(1, 8), (2, 12)]
    assert {"hint", "kd", "local"} <= history.curves.keys()
    # Hints end with their stage, opinions begin after it.
    assert max(step for step, _ in history.curves["hint"]) < min(
        step for step, _ in history.curves["kd"]
    )
