"""FixMatch's loss by hand, whom its gradient reaches, and what alignment does to a skew."""

import math

import pytest
import torch
from scipy.special import log_softmax, softmax

from ktan.losses import DistributionAlignment, consistency_loss

NO_LABELS = torch.empty(0, dtype=torch.int64)
PREDICTIONS = torch.tensor([[0.96, 0.03, 0.01], [0.5, 0.3, 0.2], [0.0, 0.05, 0.95]])
STRONG = torch.tensor([[1.0, 2.0, 0.0], [3.0, -1.0, 0.5], [0.2, 0.1, -0.4]])


def test_loss_by_hand() -> None:
    expected = log_softmax(STRONG.numpy().astype(float), axis=1)
    # Samples 0 and 2 are sure: of class 0 and of class 2.
    by_hand = -(expected[0, 0] + expected[2, 2]) / 3
    assert consistency_loss(PREDICTIONS, STRONG, 0.95).item() == pytest.approx(by_hand, rel=1e-6)
    only_first = -expected[0, 0] / 3
    assert consistency_loss(PREDICTIONS, STRONG, 0.955).item() == pytest.approx(only_first)
    uniform = consistency_loss(PREDICTIONS, torch.zeros(3, 3), 0.95).item()
    assert uniform == pytest.approx(2 / 3 * math.log(3))


def test_under_the_threshold_there_is_neither_loss_nor_gradient() -> None:
    strong = STRONG.clone().requires_grad_()
    loss = consistency_loss(PREDICTIONS, strong, 0.97)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, strong)[0].any()
    empty = torch.zeros(0, 3, requires_grad=True)
    loss = consistency_loss(torch.zeros(0, 3), empty, 0.5)
    assert loss.item() == 0
    assert loss.requires_grad


def test_gradient_goes_through_the_sure_strong_views_only() -> None:
    weak, strong = PREDICTIONS.log().requires_grad_(), STRONG.clone().requires_grad_()
    alignment = DistributionAlignment(3)
    loss = consistency_loss(alignment(weak, NO_LABELS), strong, 0.9)
    through_weak, gradient = torch.autograd.grad(loss, [weak, strong], allow_unused=True)
    assert through_weak is None
    # d CE / d z = softmax(z) − one-hot.
    expected = torch.softmax(STRONG, dim=1) - torch.eye(3)[[0, 0, 2]]
    expected[1] = 0
    torch.testing.assert_close(gradient, expected / 3)
    plain = weak.softmax(dim=1).requires_grad_()
    assert not consistency_loss(plain, STRONG, 0.9).requires_grad


def test_a_student_that_agrees_with_itself_has_no_loss() -> None:
    sure = torch.tensor([[30.0, 0.0], [0.0, 30.0]])
    assert consistency_loss(sure.softmax(dim=1), sure, 0.95).item() < 1e-9


def test_alignment_by_hand() -> None:
    alignment = DistributionAlignment(2, momentum=0.5)
    logits = torch.tensor([[math.log(4.0), 0.0], [0.0, 0.0]])  # 0.8 / 0.2 and 0.5 / 0.5
    found = alignment(logits, torch.tensor([1, 1, -1, 0]))
    predicted = [0.5 * 0.5 + 0.5 * 0.65, 0.5 * 0.5 + 0.5 * 0.35]
    target = [0.5 * 0.5 + 0.5 / 3, 0.5 * 0.5 + 0.5 * 2 / 3]
    ratios = torch.tensor([target[0] / predicted[0], target[1] / predicted[1]])
    expected = torch.tensor([[0.8, 0.2], [0.5, 0.5]]) * ratios
    torch.testing.assert_close(found, expected / expected.sum(dim=1, keepdim=True))
    torch.testing.assert_close(alignment.predicted, torch.tensor(predicted))
    torch.testing.assert_close(alignment.target, torch.tensor(target))


def test_alignment_rests_in_evaluation_and_for_empty_batches() -> None:
    alignment = DistributionAlignment(3)
    assert alignment(torch.zeros(0, 3), torch.full((4,), -1)).shape == (0, 3)
    alignment.eval()
    found = alignment(STRONG, torch.tensor([0, 0]))
    torch.testing.assert_close(found, torch.from_numpy(softmax(STRONG.numpy(), axis=1)))
    for marginal in alignment.predicted, alignment.target:
        torch.testing.assert_close(marginal, torch.full((3,), 1 / 3))


def skewed(steps: int, alignment: DistributionAlignment, labels: torch.Tensor) -> torch.Tensor:
    """How often each of four classes is the pseudo-label of a predictor that leans to class 0.

    The samples are balanced, and the predictor tells their classes; but it adds 3 to class 0.
    """
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(4)
    for step in range(steps):
        truth = torch.randint(4, (64,), generator=generator)
        logits = 2 * torch.eye(4)[truth] + 0.3 * torch.randn(64, 4, generator=generator)
        logits[:, 0] += 3
        found = alignment(logits, labels).argmax(dim=1)
        if step >= steps // 2:
            counts += torch.bincount(found, minlength=4)
    return counts / counts.sum()


def test_alignment_counters_a_predictor_that_leans_to_one_class() -> None:
    still = DistributionAlignment(4).eval()
    assert skewed(40, still, NO_LABELS)[0] > 0.9
    shares = skewed(400, DistributionAlignment(4), NO_LABELS)
    assert (shares - 0.25).abs().max() < 0.1


def test_labels_give_the_marginal_that_is_aligned_to() -> None:
    alignment = DistributionAlignment(2)
    for _ in range(1000):
        found = alignment(torch.zeros(8, 2), torch.tensor([0, 1, 1, 1, -1]))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75]]).expand(8, 2), rtol=0, atol=1e-3)


def test_marginals_are_part_of_the_state() -> None:
    one, other = DistributionAlignment(3), DistributionAlignment(3)
    one(STRONG, torch.tensor([2, 2]))
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other(STRONG, NO_LABELS), one(STRONG, NO_LABELS))
    assert not torch.equal(one.target, torch.full((3,), 1 / 3))


def test_reduced_precision_keeps_the_labels() -> None:
    alignment = DistributionAlignment(3).eval()
    found = alignment(PREDICTIONS.log().clamp(min=-9).bfloat16(), NO_LABELS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, PREDICTIONS, rtol=0, atol=0.01)
    loss = consistency_loss(PREDICTIONS, STRONG, 0.95).item()
    low = consistency_loss(found, STRONG.bfloat16().float(), 0.93).item()
    assert low == pytest.approx(loss, rel=0.02)
