"""Bounds on μ, against exact binomial sums and a simulated test."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from privacy.audit.clopper_pearson import rate_upper
from privacy.audit.mechanism.statistics import (
    Mistakes,
    least_expected,
    mu_estimate,
    mu_lower,
)


@given(trials=st.integers(2, 400), mu=st.floats(0.0, 5.0), alpha=st.floats(1e-6, 0.2))
def test_a_bound_is_wrong_at_most_as_often_as_it_says(trials, mu, alpha):
    """By exact summation over one side: the other one adds no more than its own share."""
    rate = norm.cdf(-mu / 2.0)
    counts = np.arange(trials + 1)
    wrong = np.array([rate_upper(int(c), trials, alpha / 2.0) < rate for c in counts])
    assert binom.pmf(counts, trials, rate)[wrong].sum() <= alpha / 2.0 * (1.0 + 1e-9)


def test_the_bound_is_the_difference_of_two_normal_quantiles():
    mistakes = Mistakes(1000, 310, 305)
    expected = norm.ppf(1 - rate_upper(310, 1000, 5e-3)) - norm.ppf(rate_upper(305, 1000, 5e-3))
    assert mu_lower(mistakes, 0.01) == pytest.approx(expected, rel=1e-12)
    assert mu_estimate(mistakes) == pytest.approx(norm.ppf(0.69) - norm.ppf(0.305), rel=1e-12)
    assert mu_lower(mistakes, 0.01) < mu_estimate(mistakes)


def test_a_coin_shows_nothing_and_a_perfect_test_shows_what_its_trials_allow():
    assert mu_lower(Mistakes(10_000, 5_000, 5_000), 0.01) == 0.0
    perfect = mu_lower(Mistakes(1000, 0, 0), 0.01)
    assert perfect == pytest.approx(-2 * norm.ppf(1 - 0.005 ** (1 / 1000)), rel=1e-9)
    assert math.isfinite(mu_estimate(Mistakes(1000, 0, 0)))


def test_what_a_case_must_show_is_missed_as_rarely_as_it_says():
    """Exactly: the least count above the limit has probability at most chance/2 a side."""
    distance, trials, alpha, chance = 2.0, 300, 1e-3, 1e-4
    least = least_expected(distance, trials, alpha, chance)
    rate = norm.cdf(-distance / 2.0)
    counts = np.arange(trials + 1)
    under = np.array([mu_lower(Mistakes(trials, int(c), int(c)), alpha) < least for c in counts])
    assert 0.0 < binom.pmf(counts, trials, rate)[under].sum() <= chance / 2.0
    assert 0.0 < least < distance


def test_more_trials_show_more():
    shown = [least_expected(1.0, trials, 1e-3, 1e-6) for trials in (100, 1000, 10_000, 100_000)]
    assert shown == sorted(shown)
    # The figures of the default audit: 10⁵ trials of μ = 1, ten bounds at 0.99 together.
    assert shown[-1] > 0.9


def test_more_mistakes_than_trials_are_refused():
    with pytest.raises(ValueError, match="mistakes"):
        Mistakes(10, 11, 0)
