import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from ktan.losses import centred_logits_loss, expected_cross_entropy

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(scale=2, size=(6, 5))
TARGET = softmax(RANDOM.normal(scale=2, size=(6, 5)), axis=1)


def gradient(loss, logits: np.ndarray, target: torch.Tensor) -> torch.Tensor:
    student = torch.tensor(logits, requires_grad=True)
    loss(student, target).backward()
    assert student.grad is not None
    return student.grad


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_cross_entropy_is_scipys_kl_plus_entropy(temperature: float) -> None:
    p = softmax(LOGITS / temperature, axis=1)
    kl = rel_entr(TARGET, p).sum(axis=1)
    entropy = -(TARGET * np.log(TARGET)).sum(axis=1)
    expected = temperature**2 * (kl + entropy).mean()
    loss = expected_cross_entropy(torch.tensor(LOGITS), torch.tensor(TARGET), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_cross_entropy_is_linear_in_a_target_off_the_simplex() -> None:
    target = RANDOM.normal(size=(6, 5))
    expected = -(target * log_softmax(LOGITS, axis=1)).sum(axis=1).mean()
    loss = expected_cross_entropy(torch.tensor(LOGITS), torch.tensor(target))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_cross_entropy_of_equal_students_has_no_gradient(temperature: float) -> None:
    target = torch.softmax(torch.tensor(LOGITS) / temperature, dim=1)
    found = gradient(lambda z, q: expected_cross_entropy(z, q, temperature), LOGITS, target)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", [expected_cross_entropy, centred_logits_loss])
def test_gradient_is_unbiased_under_noise(loss) -> None:
    """Antithetic pairs cancel exactly where the gradient is affine in the target."""
    clean = torch.tensor(TARGET)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).double()
    pair = (gradient(loss, LOGITS, clean + noise) + gradient(loss, LOGITS, clean - noise)) / 2
    torch.testing.assert_close(pair, gradient(loss, LOGITS, clean), rtol=1e-10, atol=1e-12)


def test_kl_of_softened_noisy_logits_would_be_biased() -> None:
    """The check above can fail: the textbook loss fails it."""

    def textbook(logits: torch.Tensor, released: torch.Tensor) -> torch.Tensor:
        return expected_cross_entropy(logits, torch.softmax(released, dim=1))

    clean = torch.tensor(LOGITS)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).double()
    pair = gradient(textbook, LOGITS, clean + noise) + gradient(textbook, LOGITS, clean - noise)
    assert (pair / 2 - gradient(textbook, LOGITS, clean)).abs().max() > 1e-3


def test_centred_logits_ignore_a_common_shift_and_noise_adds_a_known_constant() -> None:
    clean = torch.tensor(LOGITS)
    assert centred_logits_loss(clean + 7, clean - 2).item() == pytest.approx(0, abs=1e-20)
    generator = torch.Generator().manual_seed(1)
    released = torch.zeros(200_000, 5) + 0.3 * torch.randn(200_000, 5, generator=generator)
    # Mean of 800,000 squares with relative sd sqrt(2): 1 % is more than six standard errors.
    found = centred_logits_loss(torch.zeros(200_000, 5), released).item()
    assert found == pytest.approx(0.3**2 * (1 - 1 / 5), rel=0.01)


def test_reduced_precision_stays_close() -> None:
    logits, target = torch.tensor(LOGITS), torch.tensor(TARGET)
    for loss in (expected_cross_entropy, centred_logits_loss):
        low = loss(logits.bfloat16().float(), target.float())
        assert low.item() == pytest.approx(loss(logits, target).item(), rel=0.02)
