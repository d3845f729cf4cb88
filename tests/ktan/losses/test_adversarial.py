import math

import pytest
import torch
import torch.nn.functional as F

from ktan.losses import (
    discrimination_loss,
    discriminator_accuracy,
    generation_loss,
    with_matched_noise,
)


def test_losses_are_binary_cross_entropies() -> None:
    real, fake = torch.randn(7), torch.randn(9)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(7))
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros(9))
    assert discrimination_loss(real, fake).item() == pytest.approx(expected.item(), rel=1e-5)
    expected = F.binary_cross_entropy_with_logits(fake, torch.ones(9))
    assert generation_loss(fake).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_undecided_discriminator_has_the_known_value() -> None:
    zeros = torch.zeros(4)
    assert discrimination_loss(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    assert generation_loss(zeros).item() == pytest.approx(math.log(2))


def test_the_two_sides_pull_a_fake_score_apart() -> None:
    score = torch.zeros(1, requires_grad=True)
    (discriminators,) = torch.autograd.grad(discrimination_loss(torch.zeros(1), score), score)
    (students,) = torch.autograd.grad(generation_loss(score), score)
    assert discriminators > 0 > students


def test_the_student_does_not_saturate_where_the_discriminator_wins() -> None:
    score = torch.full((1,), -20.0, requires_grad=True)
    (slope,) = torch.autograd.grad(generation_loss(score), score)
    assert slope.item() == pytest.approx(-1, abs=1e-6)


def test_accuracy_counts_both_sides_alike() -> None:
    assert discriminator_accuracy(torch.tensor([1.0, -1.0]), torch.full((6,), -1.0)) == 0.75
    assert discriminator_accuracy(torch.zeros(3), torch.zeros(3)) == 0.5


def test_a_winning_discriminator_rests_and_its_curve_does_not() -> None:
    real = torch.tensor([1.0, 1.0, -1.0, 1.0], requires_grad=True)
    fake = torch.tensor([-1.0, -1.0, -1.0, -1.0])
    for limit, rests in ((0.8, True), (0.9, False), (1.0, False)):
        loss = discrimination_loss(real, fake, limit)
        (slope,) = torch.autograd.grad(loss, real)
        assert (not slope.any()) is rests
        assert loss.item() == pytest.approx(discrimination_loss(real, fake).item())


def test_matched_noise_has_the_published_spread() -> None:
    torch.manual_seed(0)
    features = torch.full((200_000,), 5.0)
    noise = with_matched_noise(features, 0.7) - features
    # Six standard errors of the mean and of the sd.
    assert abs(noise.mean().item()) < 6 * 0.7 / 200_000**0.5
    assert abs(noise.std().item() - 0.7) < 6 * 0.7 / 400_000**0.5
    assert not torch.equal(noise, with_matched_noise(features, 0.7) - features)
    assert with_matched_noise(features, 0.0) is features
