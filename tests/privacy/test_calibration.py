"""Radii: as large as the budget allows, and never larger."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import gaussian
from privacy.accounting import MAX_RADIUS, budget_units, charge_units
from privacy.budget import open_plan, spent_epsilon
from privacy.calibration import radii
from privacy.errors import InvalidPlan

KINDS = {"probabilities": "probabilities", "hint": "hint", "logits": "logits"}


@given(
    st.integers(10**4, 10**15),
    st.integers(1, 500),
    st.dictionaries(st.sampled_from(sorted(KINDS)), st.floats(0.1, 10.0), min_size=1),
)
def test_all_answers_fit_and_one_more_grid_step_would_not(
    budget: int, answers: int, shares: dict[str, float]
) -> None:
    try:
        result = radii(budget, answers, shares, KINDS)
    except InvalidPlan:
        assert budget // answers < 1000
        return
    spent = answers * sum(charge_units(KINDS[name], r) for name, r in result.items())
    assert spent <= budget
    whole = sum(Fraction(share) for share in shares.values())
    for name, radius in result.items():
        if radius < MAX_RADIUS:
            fair = (budget // answers) * Fraction(shares[name]) / whole
            assert charge_units(KINDS[name], radius) <= fair
            assert charge_units(KINDS[name], radius + 1) > fair


@settings(max_examples=150, deadline=None)
@given(
    st.floats(0.05, 50.0),
    st.floats(-10.0, -2.0),
    st.integers(1, 20_000),
    st.dictionaries(st.sampled_from(sorted(KINDS)), st.floats(0.1, 10.0), min_size=1),
)
def test_epsilon_is_never_above_the_target_and_close_below_it(
    epsilon: float, log_delta: float, answers: int, shares: dict[str, float]
) -> None:
    """From (ε, δ) to radii and back. Rounding a radius down costs at most 3/R of ε."""
    delta = 10.0**log_delta
    plan = open_plan(epsilon, delta, draws=1)
    try:
        result = radii(plan.answer_units, answers, shares, KINDS)
    except InvalidPlan:
        # A share under one grid step: an answer of such a μ is nothing that anybody would serve.
        assert plan.mu_max / math.sqrt(answers) < 1e-4
        return
    spent = answers * sum(charge_units(KINDS[name], radius) for name, radius in result.items())
    reached = spent_epsilon(plan, spent)
    assert reached <= epsilon
    # The curve itself, at the real μ, beside what is displayed.
    mu = math.sqrt(spent) / 2**20
    assert gaussian.delta(epsilon, mu) <= delta
    assert reached >= epsilon * (1.0 - 3.0 / min(result.values())) - 1e-9


def test_the_demonstration_setting() -> None:
    """300 answers at μ = 0.9249 with shares 0.9 / 0.1: noise 0.14 on a probability at k = 200."""
    result = radii(budget_units(0.9249), 300, {"probabilities": 0.9, "hint": 0.1}, KINDS)
    assert 2**20 / (result["probabilities"] * 200) == pytest.approx(0.1396, abs=1e-4)
    assert result["hint"] == 8853


@pytest.mark.parametrize(
    ("budget", "answers", "shares", "message"),
    [
        (10**6, 0, {"hint": 1.0}, "number of answers"),
        (10**6, 10, {}, "no tap"),
        (10**6, 10, {"hint": 0.0}, "above 0"),
        (10**6, 10, {"hint": float("nan")}, "above 0"),
        (10**6, 10, {"absent": 1.0}, "no tap 'absent'"),
        (10**3, 10**3, {"hint": 1.0}, "fewer answers"),
        (0, 1, {"hint": 1.0}, "larger budget"),
    ],
)
def test_what_cannot_be_served_is_refused(
    budget: int, answers: int, shares: dict[str, float], message: str
) -> None:
    with pytest.raises(InvalidPlan, match=message):
        radii(budget, answers, shares, KINDS)
