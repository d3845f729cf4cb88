"""Every method: values against independent ones, gradients where they belong and nowhere else."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.methods import METHODS, Batch, Method, Objective
from ktan.methods.fitnet import FitNet
from ktan.methods.ktan import KTAN
from ktan.methods.local import Local
from ktan.methods.soft_logits import SoftLogits
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind

TAPS = {
    "probabilities": AnswerTap("probabilities", "probabilities", (3,), 0.1, temperature=2.0),
    "hint": AnswerTap("hint", "hint", (4,), noise_sd=0.5),
}
PATHS = {"hint": "features"}
OF_VECTORS = ("local", "soft-logits", "fitnet", "ktan")
"""Methods that a teacher of vectors can serve."""
UNKNOWN = torch.full((6,), -1)


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
        self.classifier = nn.Linear(6, 3)

    def forward(self, samples: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(samples))
        return logits


def batch(labelled: int = 4, answered: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        labelled=torch.randn(labelled, 5, generator=generator),
        labels=torch.randint(0, 3, (labelled,), generator=generator),
        answered=torch.randn(answered, 5, generator=generator),
        answers={
            "probabilities": torch.rand(answered, 3, generator=generator),
            "hint": 20 + 3 * torch.randn(answered, 4, generator=generator),
        },
        answered_labels=torch.full((answered,), -1),
    )


def bound(method: Method, seed: int = 0) -> tuple[Student, Objective]:
    torch.manual_seed(seed)
    student = Student()
    return student, bind(method, student, (5,), TAPS, PATHS, batch(0, 50).answers)


def losses(method: Method, part: Batch, player: str = "student") -> dict[str, float]:
    student, objective = bound(method)
    found = objective.losses(player, objective.observe(student, part), part)
    return {name: loss.item() for name, loss in found.items()}


def test_soft_logits_by_torchs_own_losses() -> None:
    part = batch()
    student, _ = bound(SoftLogits())
    found = losses(SoftLogits(local_weight=0.1, kd_weight=0.9, denoise="none"), part)
    local = F.cross_entropy(student(part.labelled), part.labels).item()
    target = part.answers["probabilities"]
    kd = 4 * F.cross_entropy(student(part.answered) / 2.0, target).item()
    assert found == {"local": pytest.approx(0.1 * local), "kd": pytest.approx(0.9 * kd)}


def test_released_logits_are_imitated_when_there_are_no_probabilities() -> None:
    torch.manual_seed(0)
    student = Student()
    taps = {"logits": AnswerTap("logits", "logits", (3,), noise_sd=1.0)}
    part = batch()
    released = torch.randn(6, 3)
    part = Batch(part.labelled, part.labels, part.answered, {"logits": released}, UNKNOWN)
    objective = bind(SoftLogits(kd_weight=1.0), student, (5,), taps, {}, part.answers)
    view = objective.observe(student, part)
    difference = view.answered_logits - released
    expected = (difference - difference.mean(dim=1, keepdim=True)).square().mean()
    torch.testing.assert_close(objective.losses("student", view, part)["kd"], expected)


def test_noise_free_probabilities_are_not_shrunk() -> None:
    taps = {"probabilities": AnswerTap("probabilities", "probabilities", (3,), 0.0)}
    part = batch()
    for how in ("none", "simplex"):
        student, _ = bound(Local())
        objective = bind(SoftLogits(denoise=how), student, (5,), taps, {}, part.answers)
        found = objective.losses("student", objective.observe(student, part), part)["kd"]
        logits, q = student(part.answered), part.answers["probabilities"]
        torch.testing.assert_close(found, 3 * F.cross_entropy(logits, q))


def test_hint_loss_is_on_unit_scale_and_through_the_connector() -> None:
    part = batch()
    student, objective = bound(FitNet(hint_weight=2.0))
    answers = batch(0, 50).answers["hint"]
    scale = (answers - answers.mean(dim=0)).square().mean().sqrt()
    target = (part.answers["hint"] - answers.mean(dim=0)) / scale
    connector = objective.owned["student"]["hint"].project
    expected = 2 * (connector(student.features(part.answered)) - target).square().mean()
    assert losses(FitNet(hint_weight=2.0), part)["hint"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_student_that_says_what_the_teacher_says_has_a_zero_hint_loss() -> None:
    part = batch()
    student, objective = bound(FitNet())
    connector = objective.owned["student"]["hint"].project
    with torch.no_grad():
        raw = connector(student.features(part.answered))
    answers = batch(0, 50).answers["hint"]
    scale = (answers - answers.mean(dim=0)).square().mean().sqrt()
    same = {**part.answers, "hint": raw * scale + answers.mean(dim=0)}
    part = Batch(part.labelled, part.labels, part.answered, same, part.answered_labels)
    found = objective.losses("student", objective.observe(student, part), part)["hint"]
    assert found.item() == pytest.approx(0, abs=1e-9)


def test_known_labels_of_answered_samples_are_used_by_the_local_loss() -> None:
    part = batch()
    labels = torch.tensor([0, -1, 2, -1, -1, 1])
    part = Batch(part.labelled, part.labels, part.answered, part.answers, labels)
    student, _ = bound(Local())
    logits = student(torch.cat([part.labelled, part.answered[labels >= 0]]))
    expected = F.cross_entropy(logits, torch.cat([part.labels, labels[labels >= 0]]))
    assert losses(Local(), part)["local"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", OF_VECTORS)
def test_a_method_trains_its_student_and_connectors_and_nobody_else(name: str) -> None:
    student, objective = bound(METHODS[name]())
    objective(student, batch()).backward()
    mine = [*student.parameters(), *objective.learnables("student")]
    assert all(parameter.grad is not None for parameter in mine)
    for player in objective.players:
        if player != "student":
            assert all(parameter.grad is None for parameter in objective.learnables(player))
            assert all(parameter.requires_grad for parameter in objective.learnables(player))


@pytest.mark.parametrize(
    ("name", "labelled"),
    # The student alone learns from labels only.
    [(name, labelled) for name in OF_VECTORS for labelled in (0, 4) if labelled or name != "local"],
)
def test_a_plain_pytorch_loop_lowers_the_loss(name: str, labelled: int) -> None:
    student, objective = bound(METHODS[name]())
    part = batch(labelled)
    parameters = [*student.parameters(), *objective.learnables("student")]
    optimiser = torch.optim.Adam(parameters, lr=0.02)
    curve = []
    for _ in range(30):
        loss = objective(student, part)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append(loss.item())
    assert curve[-1] < curve[0]


def test_missing_taps_are_named() -> None:
    student = Student()
    with pytest.raises(UserError, match=r"probabilities or logits; the teacher answers hint"):
        bind(SoftLogits(), student, (5,), {"hint": TAPS["hint"]}, {}, {})
    for method in (FitNet(), KTAN()):
        with pytest.raises(UserError, match=r"needs a hint .* answers probabilities"):
            bind(method, student, (5,), {"probabilities": TAPS["probabilities"]}, {}, {})
        with pytest.raises(UserError, match="features"):
            bind(method, student, (5,), TAPS, {"hint": "nowhere"}, batch(0, 5).answers)
