"""Clopper and Pearson's bounds, against SciPy's interval and their definition."""

import pytest
from scipy.stats import binom, binomtest

from privacy.audit.clopper_pearson import rate_lower, rate_upper


@pytest.mark.parametrize(("count", "trials"), [(0, 50), (1, 50), (17, 100), (49, 50), (50, 50)])
def test_rates_are_clopper_and_pearsons(count, trials):
    interval = binomtest(count, trials).proportion_ci(0.98, method="exact")
    assert rate_upper(count, trials, 0.01) == pytest.approx(interval.high, rel=1e-12)
    assert rate_lower(count, trials, 0.01) == pytest.approx(interval.low, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("alpha", [1e-2, 1e-9, 1e-15])
@pytest.mark.parametrize(("count", "trials"), [(1, 50), (25, 50), (49, 50), (3, 4000)])
def test_bounds_solve_the_binomial_equations(count, trials, alpha):
    """Their definition, by the binomial law and not by the beta quantile."""
    low, high = rate_lower(count, trials, alpha), rate_upper(count, trials, alpha)
    assert binom.sf(count - 1, trials, low) == pytest.approx(alpha, rel=1e-6)
    assert binom.cdf(count, trials, high) == pytest.approx(alpha, rel=1e-6)


def test_none_and_all_bound_nothing_on_their_side():
    assert rate_lower(0, 50, 0.01) == 0.0
    assert rate_upper(50, 50, 0.01) == 1.0


@pytest.mark.parametrize(("count", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_that_cannot_be_are_refused(count, trials):
    for bound in (rate_lower, rate_upper):
        with pytest.raises(ValueError, match="successes"):
            bound(count, trials, 0.01)
