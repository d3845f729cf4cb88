"""Prices against the exact curve, computed here by numerical integration of its definition."""

import math

import pytest
from scipy import stats
from scipy.optimize import brentq

from privacy.promise import Adjacency, Promise
from student_client.cost import epsilon_after, quote, require_affordable
from student_client.description import Budget
from student_client.errors import BudgetRefused


def _epsilon(delta, mu):
    """Balle & Wang 2018, Theorem 8, by SciPy's normal distribution."""

    def excess(epsilon):
        first = stats.norm.cdf(-epsilon / mu + mu / 2)
        return first - math.exp(epsilon) * stats.norm.cdf(-epsilon / mu - mu / 2) - delta

    return brentq(excess, 1e-9, 100)


def _budget(spent, budget, epsilon_spent, epsilon_budget):
    left = budget - spent
    return Budget(budget, spent, left, 0, spent, left, epsilon_spent, epsilon_budget, 10**6)


# δ = 1e-5: ε = 4 is μ = 0.9249 (DESIGN.md's check values).
MU = brentq(lambda mu: _epsilon(1e-5, mu) - 4, 0.1, 2)
UNITS = math.floor(MU**2 * 2**40)


@pytest.mark.parametrize(("spent", "more"), [(0.0, 0.25), (0.25, 0.25), (0.5, 0.5), (0.0, 1.0)])
def test_epsilon_after_is_on_the_exact_curve(spent, more):
    before = _epsilon(1e-5, MU * math.sqrt(spent)) if spent else 0.0
    budget = _budget(int(UNITS * spent), UNITS, before, 4.0)
    after = epsilon_after(budget, int(UNITS * more))
    assert after == pytest.approx(_epsilon(1e-5, MU * math.sqrt(spent + more)), abs=1e-3)


def test_no_number_is_invented_where_training_shares_the_promise():
    # With DP-SGD runs reserved, ε is above nothing before the first answer.
    assert epsilon_after(_budget(0, UNITS, 1.3, 4.0), UNITS // 2) is None


def test_answers_of_a_dp_sgd_teacher_cost_nothing(described):
    price = quote(described(charges=(0, 0)), _budget(0, 0, 3.0, 3.0), 500)
    assert price.charge == 0
    assert price.draws == 0
    assert price.epsilon_after == 3.0
    require_affordable(price)


def test_a_price_is_the_sum_over_taps_and_samples(described):
    price = quote(described(charges=(900, 100)), _budget(0, UNITS, 0.0, 4.0), 7)
    assert price.charge == 7000
    assert price.draws == 7 * (10 + 8)


def test_what_is_not_affordable_says_what_would_be(described):
    teacher = described(charges=(900, 100))
    with pytest.raises(BudgetRefused) as caught:
        require_affordable(quote(teacher, _budget(3500, 10_000, 0.0, 4.0), 8))
    assert (caught.value.asked, caught.value.left) == (8000, 6500)
    assert "8 new answers" in str(caught.value)
    assert "cost 8,000, 6,500 is left, enough for 6" in str(caught.value)
    assert "lower --queries by 2" in str(caught.value)


def test_the_last_unit_may_be_spent(described):
    teacher = described(charges=(900, 100))
    require_affordable(quote(teacher, _budget(3000, 10_000, 0.0, 4.0), 7))


def test_a_cap_is_named_as_the_callers_own(described):
    teacher = described(charges=(900, 100))
    capped = Budget(10_000, 0, 10_000, 1000, 0, 1000, 0.0, 4.0, 10**6)
    with pytest.raises(BudgetRefused, match="your cap at the service"):
        require_affordable(quote(teacher, capped, 2))


def test_draws_are_a_limit_of_their_own(described):
    teacher = described(charges=(900, 100))
    scarce = Budget(10_000, 0, 10_000, 0, 0, 10_000, 0.0, 4.0, 40)
    with pytest.raises(BudgetRefused, match="need 54, 40 are left, enough for 2"):
        require_affordable(quote(teacher, scarce, 3))


def test_the_promise_of_the_example_is_replace_one(described):
    assert described().promise == Promise(4.0, 1e-5, Adjacency.REPLACE_ONE, "record", "ensemble")
