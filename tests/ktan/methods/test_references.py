"""The public implementations' values, against each other and against the formulae by hand."""

import pytest
import torch

from tests.ktan.methods.references import inputs, reference


def test_public_implementations_of_one_method_agree() -> None:
    boundary = reference("ab", "RepDistiller").value
    assert boundary == pytest.approx(reference("ab", "torchdistill").value)
    attention = reference("at", "RepDistiller").value
    assert 1000 * attention == pytest.approx(reference("at", "torchdistill", mode="code").value)
    parts = [reference("dkd", "mdistiller", beta=beta).value for beta in (0.0, 1.0, 8.0)]
    assert parts[0] + 8 * parts[1] == pytest.approx(parts[2])


def test_stored_inputs_are_those_the_values_were_made_of() -> None:
    given = inputs()
    teacher, student = (given[f"{who}_logits"] / 4 for who in ("teacher", "student"))
    p, q = torch.softmax(teacher, dim=1), torch.softmax(student, dim=1)
    by_hand = 16 * (p * (p / q).log()).sum(dim=1).mean().item()
    assert reference("soft-logits", "RepDistiller").value == pytest.approx(by_hand, rel=1e-5)
    for who in ("student", "teacher"):
        for number in (1, 2, 3):
            before = given[f"{who}_before_{number}"]
            assert torch.equal(given[f"{who}_map_{number}"], before.clamp(min=0))
