"""Decoupled KD: the public values, by hand, at the edges, and under noise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ktan.denoising import project_to_simplex
from ktan.errors import UserError
from ktan.methods import Batch
from ktan.methods.dkd import DecoupledKD, decoupled_losses
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import scene, taught_teacher
from tests.ktan.methods.references import inputs, reference


class Logits(nn.Module):
    """A student whose parameters are its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(inputs()["student_logits"])

    def forward(self, samples: Tensor) -> Tensor:
        return self.values * 1


def given(
    tap: AnswerTap, answer: Tensor, labels: Tensor, **options: object
) -> tuple[Logits, dict[str, Tensor]]:
    """Student and weighted losses on the stored inputs."""
    student, samples = Logits(), torch.zeros(4, 1)
    answers = {tap.name: answer}
    method = DecoupledKD(**options)  # type: ignore[arg-type]
    objective = bind(method, student, (1,), {tap.name: tap}, {}, answers, classes=5)
    batch = Batch(samples[:0], labels[:0], samples, answers, labels)
    return student, objective.losses("student", objective.observe(student, batch), batch)


LOGITS = AnswerTap("logits", "logits", (5,))
SOFT = AnswerTap("probabilities", "probabilities", (5,), temperature=4.0)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_loss_and_gradient_are_those_of_public_code(kind: str, alpha: float, beta: float) -> None:
    stored = inputs()
    teacher = stored["teacher_logits"]
    tap, answer = (LOGITS, teacher) if kind == "logits" else (SOFT, (teacher / 4).softmax(dim=1))
    student, losses = given(tap, answer, stored["labels"], target_weight=alpha, other_weight=beta)
    expected = reference("dkd", "mdistiller", alpha=alpha, beta=beta)
    total = losses["target"] + losses["others"]
    assert total.item() == pytest.approx(expected.value, rel=1e-5)
    (gradient,) = torch.autograd.grad(total, student.values)
    norm = expected.gradient_norms["student_logits"]
    assert gradient.norm().item() == pytest.approx(norm, rel=1e-4)


def test_both_parts_make_up_soft_logits() -> None:
    """KL = TCKD + (1 − p_y)·NCKD, sample by sample (Zhao et al. 2022, equation 6)."""
    stored = inputs()
    p, z = (stored["teacher_logits"] / 2).softmax(dim=1), stored["student_logits"]
    for row in range(4):
        one = slice(row, row + 1)
        target, others = decoupled_losses(z[one], p[one], stored["labels"][one], 2.0)
        whole = 4 * (p[one] * (p[one].log() - (z[one] / 2).log_softmax(dim=1))).sum()
        left = 1 - p[row, stored["labels"][row]]
        torch.testing.assert_close(target + left * others, whole)


def test_an_unknown_label_is_the_teachers_best_guess() -> None:
    teacher = inputs()["teacher_logits"]
    _, unknown = given(LOGITS, teacher, torch.full((4,), -1))
    _, guessed = given(LOGITS, teacher, teacher.argmax(dim=1))
    for name in ("target", "others"):
        torch.testing.assert_close(unknown[name], guessed[name])
    assert unknown["local"].item() == 0 < guessed["local"].item()


def test_a_teacher_that_is_certain_says_nothing_of_the_other_classes() -> None:
    stored = inputs()
    certain = nn.functional.one_hot(stored["labels"], 5).float()
    student, losses = given(SOFT, certain, stored["labels"])
    assert losses["others"].item() == 0
    chance = (student.values / 4).softmax(dim=1).gather(1, stored["labels"][:, None])
    torch.testing.assert_close(losses["target"], -16 * chance.log().mean())
    (gradient,) = torch.autograd.grad(losses["target"] + losses["others"], student.values)
    assert gradient.isfinite().all()


def test_a_noisy_answer_is_brought_to_the_simplex() -> None:
    stored = inputs()
    noise = 0.3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    noisy = (stored["teacher_logits"] / 4).softmax(dim=1) + noise
    assert (noisy < 0).any()
    _, found = given(replace(SOFT, noise_sd=0.3), noisy, stored["labels"], denoise="simplex")
    _, clean = given(SOFT, project_to_simplex(noisy), stored["labels"])
    for name in ("target", "others"):
        assert found[name].isfinite()
        torch.testing.assert_close(found[name], clean[name])
    with pytest.raises(UserError, match="soft-logits"):
        DecoupledKD(denoise="none")


def test_a_student_that_is_its_teacher_has_no_loss() -> None:
    same = scene(DecoupledKD(), same=True)
    for name in ("target", "others"):
        assert same.loss(name).item() == pytest.approx(0, abs=1e-5)
        assert scene(DecoupledKD()).loss(name).item() > 1e-3


def test_gradient_reaches_the_whole_student_and_nothing_else() -> None:
    found = scene(DecoupledKD())
    whole = {name for name, _ in found.student.named_parameters()}
    assert set(found.gradients("target")) == set(found.gradients("others")) == whole
    assert found.objective.learnables("student") == []
    assert not taught_teacher(found)


def test_reduced_precision_stays_close() -> None:
    found = scene(DecoupledKD())
    for name in ("target", "others"):
        low = found.loss(name, bf16=True)
        assert low.dtype == torch.float32
        assert low.item() == pytest.approx(found.loss(name).item(), rel=0.1)
