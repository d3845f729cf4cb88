"""Soft logits: the public values, what equal networks say, and noise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ktan.methods import Batch
from ktan.methods.soft_logits import SoftLogits
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import scene, taught_teacher
from tests.ktan.methods.references import inputs, reference


class Logits(nn.Module):
    """A student whose parameters are its logits."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, samples: Tensor) -> Tensor:
        return self.values * 1


def given(noise_sd: float = 0.0, **options: object) -> tuple[Logits, dict[str, Tensor], Tensor]:
    """Student, weighted losses and the teacher's distribution at T = 4, on the stored inputs."""
    stored = inputs()
    target = torch.softmax(stored["teacher_logits"] / 4, dim=1)
    tap = AnswerTap("probabilities", "probabilities", (5,), noise_sd, temperature=4.0)
    student, samples = Logits(stored["student_logits"]), torch.zeros(4, 1)
    answers = {"probabilities": target}
    method = SoftLogits(**options)  # type: ignore[arg-type]
    objective = bind(method, student, (1,), {"probabilities": tap}, {}, answers, classes=5)
    batch = Batch(samples[:0], stored["labels"][:0], samples, answers, stored["labels"])
    return student, objective.losses("student", objective.observe(student, batch), batch), target


def test_loss_and_gradient_are_those_of_public_code_up_to_the_teachers_entropy() -> None:
    student, losses, target = given(local_weight=0.1, kd_weight=0.9)
    entropy = -16 * (target * target.log()).sum(dim=1).mean()
    expected = reference("soft-logits", "torchdistill", alpha=0.1)
    total = losses["local"] + losses["kd"]
    assert (total - 0.9 * entropy).item() == pytest.approx(expected.value, rel=1e-5)
    (gradient,) = torch.autograd.grad(total, student.values)
    norm = expected.gradient_norms["student_logits"]
    assert gradient.norm().item() == pytest.approx(norm, rel=1e-5)


def test_the_distillation_term_alone_is_that_of_another() -> None:
    student, losses, target = given(kd_weight=1.0)
    entropy = -16 * (target * target.log()).sum(dim=1).mean()
    expected = reference("soft-logits", "RepDistiller")
    assert (losses["kd"] - entropy).item() == pytest.approx(expected.value, rel=1e-5)
    (gradient,) = torch.autograd.grad(losses["kd"], student.values)
    norm = expected.gradient_norms["student_logits"]
    assert gradient.norm().item() == pytest.approx(norm, rel=1e-5)


def test_a_student_that_is_its_teacher_is_left_alone() -> None:
    """Its loss is the teacher's entropy, times T², and nothing pulls."""
    same = scene(SoftLogits(kd_weight=1.0), same=True)
    (target,) = same.batch.answers.values()
    entropy = -16 * (target * target.log()).sum(dim=1).mean()
    torch.testing.assert_close(same.loss("kd"), entropy)
    pull = torch.stack([gradient.norm() for gradient in same.gradients("kd").values()]).max()
    other = torch.stack([g.norm() for g in scene(SoftLogits()).gradients("kd").values()]).max()
    assert pull < 1e-4 * other


def test_gradient_reaches_the_whole_student_and_nothing_else() -> None:
    found = scene(SoftLogits())
    assert set(found.gradients("kd")) == {name for name, _ in found.student.named_parameters()}
    assert found.objective.learnables("student") == []
    assert not taught_teacher(found)


def test_noise_leaves_the_gradient_unbiased_without_denoising_only() -> None:
    stored, tap = inputs(), AnswerTap("probabilities", "probabilities", (5,), 0.3, temperature=4.0)
    noise = 0.3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    _, _, target = given()

    def gradient(how: str, answer: Tensor) -> Tensor:
        student, samples = Logits(stored["student_logits"]), torch.zeros(4, 1)
        answers = {"probabilities": answer}
        method = SoftLogits(denoise=how)  # type: ignore[arg-type]
        objective = bind(method, student, (1,), {"probabilities": tap}, {}, answers, classes=5)
        batch = Batch(samples[:0], stored["labels"][:0], samples, answers, stored["labels"])
        loss = objective.losses("student", objective.observe(student, batch), batch)["kd"]
        return torch.autograd.grad(loss, student.values)[0]

    def bias(how: str) -> float:
        mean = (gradient(how, target + noise) + gradient(how, target - noise)) / 2
        return (mean - gradient("none", target)).abs().max().item()

    assert bias("none") < 1e-5
    assert bias("simplex") > 1e-2


def test_reduced_precision_stays_close() -> None:
    found = scene(SoftLogits())
    low = found.loss("kd", bf16=True)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(found.loss("kd").item(), rel=0.02)


def test_samples_without_a_label_still_teach() -> None:
    found = scene(SoftLogits())
    unlabelled = replace(found.batch, answered_labels=torch.full((6,), -1))
    terms = found.objective.losses("student", found.view(), unlabelled)
    assert terms["local"].item() == 0
    torch.testing.assert_close(terms["kd"], found.loss("kd"))
