"""The exact curve, against mpmath, dp-accounting and published values."""

import math

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import gaussian

EPSILONS = (1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)
DELTAS = (0.5, 1e-2, 1e-5, 1e-10, 1e-15, 1e-30)


def exact_delta(epsilon: float, mu: float) -> mpmath.mpf:
    """Balle & Wang 2018, Theorem 8, as it stands, with 120 digits."""
    with mpmath.workdps(120):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        return mpmath.ncdf(-e / m + m / 2) - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2)


def exact_log_delta(epsilon: float, mu: float) -> mpmath.mpf:
    """log δ of the same."""
    with mpmath.workdps(120):
        return mpmath.log(exact_delta(epsilon, mu))


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("delta", DELTAS)
def test_mu_and_epsilon_invert_the_exact_curve_from_the_safe_side(
    epsilon: float, delta: float
) -> None:
    """δ of both results lies below the target, by no more than 1e-11 of it."""
    mu = gaussian.mu(epsilon, delta)
    slack = exact_log_delta(epsilon, mu) - mpmath.log(mpmath.mpf(delta))
    assert -1e-11 < slack <= 0
    again = gaussian.epsilon(delta, mu)
    slack = exact_log_delta(again, mu) - mpmath.log(mpmath.mpf(delta))
    assert slack <= 0
    assert slack > -1e-11 or again == 0.0


@pytest.mark.parametrize("epsilon", [10.0 ** (half / 2) for half in range(-12, 9)])
def test_log_delta_is_exact_within_its_stated_error(epsilon: float) -> None:
    """About 1e-12 relative of δ, for ε from 1e-6 to 1e4 and δ from 0.8 to 1e-299."""
    for exponent in (-0.1, -0.3, -1.0, -2.0, -5.0, -10.0, -15.0, -30.0, -100.0, -299.0):
        mu = gaussian.mu(epsilon, 10.0**exponent)
        ours = gaussian.log_delta(epsilon, mu)
        error = abs(float(exact_log_delta(epsilon, mu) - mpmath.mpf(ours)))
        assert error <= 0.4 * gaussian.log_delta_error(mu, ours)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("mu", [1e-4, 2.99e-2, 3.01e-2, 0.5, 3.0, 40.0])
def test_delta_has_twelve_digits(epsilon: float, mu: float) -> None:
    exact = exact_delta(epsilon, mu)
    if exact < mpmath.mpf(10) ** -60:
        assert gaussian.delta(epsilon, mu) < 1e-59
    else:
        assert float(gaussian.delta(epsilon, mu) / exact) == pytest.approx(1.0, rel=5e-12)


@settings(max_examples=200, deadline=None)
@given(st.floats(-3.0, 2.5), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_log_delta_is_concave_in_epsilon_and_in_log_mu(log_mu: float, first: float, second: float):
    """What makes Newton's steps stay on the safe side (the module's docstring)."""
    mu = 10.0**log_mu
    low, high = sorted((10.0**first, 10.0**second))
    for point in (
        lambda t: gaussian.log_delta(low + t * (high - low), mu),
        lambda t: gaussian.log_delta(mu, low * (high / low) ** t),
    ):
        ends = point(0.0), point(1.0)
        if min(ends) > -700.0:
            assert point(0.5) >= sum(ends) / 2.0 - 1e-10


@settings(max_examples=300, deadline=None)
@given(st.floats(1e-300, 1e6), st.floats(5e-324, 1.0, exclude_max=True))
def test_every_curve_has_an_answer(mu: float, delta: float) -> None:
    epsilon = gaussian.epsilon(delta, mu)
    assert epsilon >= 0.0
    assert gaussian.log_delta(epsilon, mu) <= math.log(delta) * (1 - 1e-15) + 1e-15


@settings(max_examples=300, deadline=None)
@given(st.floats(-3.0, 1.6), st.floats(-20.0, -0.4))
def test_epsilon_and_mu_are_inverse_and_rounded_to_the_safe_side(log_mu: float, log_d: float):
    mu, delta = 10.0**log_mu, 10.0**log_d
    epsilon = gaussian.epsilon(delta, mu)
    assert gaussian.delta(epsilon, mu) <= delta * (1 + 1e-12)
    if epsilon > 1e-6:
        assert gaussian.mu(epsilon, delta) == pytest.approx(mu, rel=1e-8)
    else:
        assert gaussian.delta(0.0, mu) <= delta * (1 + 1e-5)


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-3, 20.0), st.floats(1e-3, 20.0), st.floats(0.0, 50.0))
def test_delta_grows_with_mu_and_falls_with_epsilon(mu: float, step: float, epsilon: float):
    assert gaussian.delta(epsilon, mu + step) >= gaussian.delta(epsilon, mu)
    assert gaussian.delta(epsilon + step, mu) <= gaussian.delta(epsilon, mu)


@pytest.mark.parametrize(
    ("epsilon", "mu"), [(1.0, 0.2681), (2.0, 0.5016), (4.0, 0.9249), (8.0, 1.666)]
)
def test_budget_for_delta_one_in_a_hundred_thousand(epsilon: float, mu: float) -> None:
    assert gaussian.mu(epsilon, 1e-5) == pytest.approx(mu, abs=5e-4)


# (mu, delta, epsilon), epsilon to three decimals
COMPOSED = {
    "1000 answers at 20": (math.sqrt(1000) / 20, 1e-5, 7.511),
    "10000 answers at 100": (1.0, 1e-5, 4.377),
    "60000 answers at 500": (math.sqrt(60000) / 500, 1e-6, 2.204),
    "1000 hints at 40 and logits at 60": (math.sqrt(1000 * (1 / 1600 + 1 / 3600)), 1e-5, 4.126),
}


@pytest.mark.parametrize("case", COMPOSED)
def test_composed_answers_to_three_decimals(case: str) -> None:
    """Other libraries' figures for the same stand beside ours in test_comparison.py."""
    mu, delta, expected = COMPOSED[case]
    assert gaussian.epsilon(delta, mu) == pytest.approx(expected, abs=5e-4)


def test_nothing_released_costs_nothing() -> None:
    assert gaussian.delta(0.0, 0.0) == 0.0
    assert gaussian.epsilon(1e-5, 0.0) == 0.0


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_nonsense_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        gaussian.delta(bad, 1.0)
    with pytest.raises(ValueError, match="must be finite"):
        gaussian.delta(1.0, bad)
    with pytest.raises(ValueError, match="delta"):
        gaussian.mu(1.0, 0.0)
    with pytest.raises(ValueError, match="delta"):
        gaussian.epsilon(1.0, 1.0)
