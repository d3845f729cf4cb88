"""The adversarial game: who moves, in which direction, and under which noise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ktan.methods import Batch, Objective, View
from ktan.methods.ktan import KTAN
from ktan.teacher import AnswerTap, TapKind
from tests.ktan.methods.bind import bind

MAP = (4, 6, 6)


class Generator(nn.Module):
    """A student whose 'features' are a free affine of its input, vector or map."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        layer = nn.Linear(shape[0], shape[0]) if len(shape) == 1 else nn.Conv2d(4, 4, 1)
        self.features = nn.Sequential(layer)
        self.classifier = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

    def forward(self, samples: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(samples))
        return logits


def game(
    shape: tuple[int, ...], noise_sd: float = 0.0, kind: TapKind = "hint", **options: float
) -> tuple[Generator, Objective, Batch]:
    """A teacher whose hints lie on two poles, a student that begins around the middle."""
    torch.manual_seed(5)
    count = 256 if len(shape) == 1 else 48
    student = Generator(shape)
    student(torch.zeros(2, *shape))
    signs = torch.where(torch.rand(count, *[1] * len(shape)) < 0.5, -1.0, 1.0)
    hints = signs * torch.ones(count, *shape) + 0.1 * torch.randn(count, *shape)
    taps = {
        "probabilities": AnswerTap("probabilities", "probabilities", (3,), 0.1),
        "hint": AnswerTap("hint", kind, shape, noise_sd),
    }
    answers = {
        "probabilities": torch.rand(count, 3),
        "hint": hints + noise_sd * torch.randn_like(hints),
    }
    method = KTAN(**{"local_weight": 0.0, "kd_weight": 0.0, "hint_weight": 0.0, **options})
    objective = bind(method, student, shape, taps, {"hint": "features"}, answers)
    batch = Batch(
        labelled=torch.empty(0, *shape),
        labels=torch.empty(0, dtype=torch.int64),
        answered=torch.randn(count, *shape),
        answers=answers,
        answered_labels=torch.full((count,), -1),
    )
    return student, objective, batch


def turn(player: str, student: nn.Module, objective: Objective, batch: Batch, steps: int) -> None:
    own = list(student.parameters()) if player == "student" else []
    optimiser = torch.optim.Adam([*own, *objective.learnables(player)], lr=0.01)
    for _ in range(steps):
        view = objective.observe(student, batch)
        with objective.turn_of(player):
            optimiser.zero_grad()
            torch.stack(list(objective.losses(player, view, batch).values())).sum().backward()
        optimiser.step()


def accuracy(student: nn.Module, objective: Objective, batch: Batch) -> float:
    view: View = objective.observe(student, batch)
    return objective.measures(view, batch)["discriminator_accuracy"].item()


@pytest.mark.parametrize(
    ("shape", "noise_sd", "kind"),
    # Each with each of the two others: a vector and a map, without and with noise, hint and TSL.
    [((8,), 0.0, "hint"), ((8,), 0.5, "tsl"), (MAP, 0.5, "hint"), (MAP, 0.0, "tsl")],
)
def test_a_discriminators_turn_raises_its_accuracy_and_a_students_turn_lowers_it(
    shape: tuple[int, ...], noise_sd: float, kind: TapKind
) -> None:
    student, objective, batch = game(
        shape, noise_sd, kind, discriminator_rest=1.0, discriminator_width=16
    )
    before = accuracy(student, objective, batch)
    turn("discriminator", student, objective, batch, 30)
    told = accuracy(student, objective, batch)
    assert told > before + 0.1
    turn("student", student, objective, batch, 50)
    assert accuracy(student, objective, batch) < told - 0.1


def test_each_turn_moves_its_own_player_alone() -> None:
    student, objective, batch = game((8,), 0.5)

    def parameters() -> dict[str, list[Tensor]]:
        return {
            "discriminator": [p.detach().clone() for p in objective.learnables("discriminator")],
            "student": [
                p.detach().clone()
                for p in (*student.features.parameters(), *objective.learnables("student"))
            ],
        }

    for player, other in (("discriminator", "student"), ("student", "discriminator")):
        before = parameters()
        turn(player, student, objective, batch, 1)
        after = parameters()
        assert all(torch.equal(a, b) for a, b in zip(before[other], after[other], strict=True))
        assert not any(
            torch.equal(a, b) for a, b in zip(before[player], after[player], strict=True)
        )


def test_the_discriminator_moves_first_and_the_student_last() -> None:
    _, objective, _ = game((8,))
    assert objective.players == ("discriminator", "student")


def test_a_discriminator_that_is_well_ahead_rests() -> None:
    student, objective, batch = game((8,), discriminator_rest=0.7)
    turn("discriminator", student, objective, batch, 100)
    ahead = accuracy(student, objective, batch)
    other_student, tireless, batch = game((8,), discriminator_rest=1.0)
    turn("discriminator", other_student, tireless, batch, 100)
    assert 0.6 < ahead < accuracy(other_student, tireless, batch)


def test_matched_noise_hides_the_teachers_noise_from_the_discriminator() -> None:
    """A student whose clean hints are the teacher's: only unmatched noise tells them apart."""

    def told(published: float) -> float:
        torch.manual_seed(1)
        student = Generator((8,))
        student(torch.zeros(2, 8))
        clean = torch.randn(512, 8)
        clean = (clean - clean.mean(dim=0)) / clean.std()
        noisy = clean + 1.0 * torch.randn(512, 8)
        taps = {
            "probabilities": AnswerTap("probabilities", "probabilities", (3,)),
            "hint": AnswerTap("hint", "hint", (8,), published),
        }
        answers = {"probabilities": torch.rand(512, 3), "hint": noisy}
        objective = bind(
            KTAN(discriminator_rest=1.0), student, (8,), taps, {"hint": "features"}, answers
        )
        scale = (noisy - noisy.mean(dim=0)).square().mean().sqrt().item()
        with torch.no_grad():
            student.features[0].weight.copy_(torch.eye(8))
            student.features[0].bias.copy_(-noisy.mean(dim=0))
            connector = objective.owned["student"]["hint"].project
            connector.weight.copy_(torch.eye(8) / scale)
            connector.bias.zero_()
        batch = Batch(
            labelled=torch.empty(0, 8),
            labels=torch.empty(0, dtype=torch.int64),
            answered=clean,
            answers=answers,
            answered_labels=torch.full((512,), -1),
        )
        turn("discriminator", student, objective, batch, 60)
        return accuracy(student, objective, batch)

    assert told(published=0.0) > 0.68
    assert told(published=1.0) < 0.6


@pytest.mark.parametrize("kind", ["hint", "tsl"])
def test_only_the_students_own_feature_imitates_a_tsl(kind: TapKind) -> None:
    """A connector mixes channels, and can undo what the student does to them; a TSL's cannot."""
    student, objective, batch = game(MAP, kind=kind, hint_weight=1.0, adversarial_weight=0.0)
    torch.manual_seed(1)
    wanted = torch.randn(len(batch), *MAP)
    view = objective.observe(student, batch)
    swapped = View(view.logits, {"features": wanted[:, [1, 0, 3, 2]]}, 0, len(batch))
    target = replace(batch, answers={**batch.answers, "hint": wanted})
    optimiser = torch.optim.Adam(objective.learnables("student"), lr=0.05)
    for _ in range(80):
        loss = objective.losses("student", swapped, target)["hint"]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    if kind == "tsl":
        assert loss.item() > 0.5
    else:
        assert loss.item() < 0.05


def test_several_hints_each_have_their_own_connector_and_judge() -> None:
    torch.manual_seed(0)
    student = Generator((8,))
    student(torch.zeros(2, 8))
    taps = {
        "logits": AnswerTap("logits", "logits", (3,)),
        "hint": AnswerTap("hint", "hint", (4,), 0.1),
        "hint.layer.1": AnswerTap("hint.layer.1", "hint", (2,), 0.1),
    }
    answers = {name: torch.randn(6, *tap.shape) for name, tap in taps.items()}
    paths = {"hint": "features", "hint.layer.1": "features"}
    objective = bind(KTAN(), student, (8,), taps, paths, answers)
    assert set(objective.owned["discriminator"]) == {"hint", "hint_layer_1"}
    batch = Batch(
        labelled=torch.randn(2, 8),
        labels=torch.tensor([0, 1]),
        answered=torch.randn(6, 8),
        answers=answers,
        answered_labels=torch.full((6,), -1),
    )
    view = objective.observe(student, batch)
    found = objective.losses("student", view, batch)
    assert set(found) == {"local", "kd", "hint", "adversarial"}
    assert set(objective.losses("discriminator", view, batch)) == {"discriminator"}
    assert all(loss.isfinite() for loss in found.values())
