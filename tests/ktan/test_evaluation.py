import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import nn

from ktan.data import Normalisation
from ktan.evaluation import accuracy, student_features, student_logits

NORMALISE = Normalisation((100.0,), (50.0,))


def test_accuracy_is_sklearns_over_all_chunks_and_in_eval_mode() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 3))
    student.train()
    samples = torch.randint(0, 256, (2500, 1, 2, 2)).byte()
    labels = torch.randint(0, 3, (2500,))
    found = accuracy(student, samples, labels, normalise=NORMALISE, precision="float32")
    assert student.training
    with torch.no_grad():
        predicted = student.eval()(NORMALISE(samples)).argmax(dim=1)
    assert found == pytest.approx(accuracy_score(labels, predicted))


def test_features_are_flat_and_in_order() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(3, 2))
    samples = torch.randint(0, 256, (1200, 1, 2, 2)).byte()
    found = student_features(student, "0", samples, normalise=NORMALISE, precision="float32")
    expected = student[0](NORMALISE(samples)).flatten(1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_logits_are_the_students_own_in_order_and_in_float32() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    student = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), linear)
    samples = torch.randint(0, 256, (1200, 1, 2, 2)).byte()
    expected = (NORMALISE(samples).flatten(1) @ linear.weight.T + linear.bias).detach()
    found = student_logits(student, samples, normalise=NORMALISE, precision="float32")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    reduced = student_logits(student, samples, normalise=NORMALISE, precision="bf16")
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, expected, rtol=0.05, atol=0.05)


def test_unequal_or_empty_sets_are_refused() -> None:
    student = nn.Flatten()
    for samples, labels in ((torch.zeros(2, 1, 1, 1), [0]), (torch.zeros(0, 1, 1, 1), [])):
        with pytest.raises(ValueError, match="labels"):
            accuracy(student, samples, torch.tensor(labels), normalise=NORMALISE)
