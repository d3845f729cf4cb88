import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import log_loss, mean_squared_error

from ktan.losses import hint_loss, local_loss


def test_local_loss_is_sklearns_over_labelled_samples_only() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(5, 3))
    labels = np.array([0, -1, 2, 1, -1])
    known = labels >= 0
    probabilities = np.exp(log_softmax(logits[known], axis=1))
    expected = log_loss(labels[known], probabilities, labels=[0, 1, 2])
    found = local_loss(torch.tensor(logits), torch.tensor(labels))
    assert found.item() == pytest.approx(expected)


def test_local_loss_without_any_label_is_zero_and_moves_nothing() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = local_loss(logits, torch.full((4,), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_hint_loss_is_the_mean_square_over_batch_and_coordinates() -> None:
    student, teacher = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    expected = mean_squared_error(teacher.flatten().numpy(), student.flatten().numpy())
    assert hint_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    assert hint_loss(student, student).item() == 0
