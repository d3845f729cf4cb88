"""The boundary loss: by the paper's formula in numpy, by public code, and under noise."""

import numpy as np
import pytest
import torch

from ktan.losses import boundary_loss
from tests.ktan.methods.references import inputs, reference


def by_hand(student: np.ndarray, signs: np.ndarray, margin: float) -> float:
    """Heo et al. 2019, unit by unit, for signs of ±1."""
    total = 0.0
    for s, t in zip(student.ravel(), signs.ravel(), strict=True):
        if t <= 0 and s > -margin:
            total += (s + margin) ** 2
        if t > 0 and s <= margin:
            total += (s - margin) ** 2
    return total / len(student)


@pytest.mark.parametrize("margin", [1.0, 0.5])
def test_it_is_the_papers_formula_for_hard_signs(margin: float) -> None:
    random = np.random.default_rng(0)
    student, signs = random.normal(size=(3, 2, 4, 4)), np.sign(random.normal(size=(3, 2, 4, 4)))
    found = boundary_loss(torch.tensor(student), torch.tensor(signs), margin)
    assert found.item() == pytest.approx(by_hand(student, signs, margin), rel=1e-12)


def test_value_and_gradient_are_those_of_the_authors_code() -> None:
    given = inputs()
    student = given["student_before_1"].requires_grad_()
    signs = torch.where(given["teacher_before_1"] > 0, 1.0, -1.0)
    loss = boundary_loss(student, signs)
    loss.backward()
    expected = reference("ab", "AB_distillation", stage=1)
    assert loss.item() == pytest.approx(expected.value, rel=1e-5)
    assert student.grad is not None
    norm = expected.gradient_norms["student_before_1"]
    assert student.grad.norm().item() == pytest.approx(norm, rel=1e-5)


def test_a_unit_on_the_right_side_beyond_the_margin_costs_nothing() -> None:
    student = torch.tensor([[1.5, -1.5, 0.5, -0.5]], requires_grad=True)
    loss = boundary_loss(student, torch.tensor([[1.0, -1.0, 1.0, -1.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(0.25 + 0.25)
    assert student.grad is not None
    assert student.grad.tolist() == [[0.0, 0.0, -1.0, 1.0]]


def test_it_is_linear_in_the_signs_and_so_unbiased_in_their_noise() -> None:
    """Antithetic pairs cancel exactly where value and gradient are affine in the target."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 3, 4, 4, generator=generator).double().requires_grad_()
    signs = torch.randint(0, 2, student.shape, generator=generator).double() * 2 - 1
    noise = 3 * torch.randn(student.shape, generator=generator).double()

    def value_and_gradient(target: torch.Tensor) -> torch.Tensor:
        loss = boundary_loss(student, target)
        (gradient,) = torch.autograd.grad(loss, student)
        return torch.cat([loss.detach()[None], gradient.flatten()])

    pair = (value_and_gradient(signs + noise) + value_and_gradient(signs - noise)) / 2
    torch.testing.assert_close(pair, value_and_gradient(signs), rtol=1e-10, atol=1e-12)


def test_the_mean_of_teachers_weighs_both_sides() -> None:
    """Three of four teachers above zero: t = 1/2."""
    student = torch.tensor([[0.25]])
    expected = 0.75 * (0.25 - 1) ** 2 + 0.25 * (0.25 + 1) ** 2
    assert boundary_loss(student, torch.tensor([[0.5]])).item() == pytest.approx(expected)
