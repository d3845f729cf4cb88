"""Operating points, against closed forms and against chance."""

import numpy as np
import pytest
from scipy.stats import norm

from privacy.audit.membership.roc import operating_point
from privacy.audit.membership.trade_off import Claim


def test_a_point_is_counted_as_it_says() -> None:
    point = operating_point([5.0, 7.0, 9.0, 9.5], np.arange(10.0), 0.2)
    assert (point.threshold, point.false_positives, point.true_positives) == (7.0, 2, 2)
    assert point.true_rate == 0.5
    assert point.low < 0.5 < point.high


def test_ties_never_raise_the_false_positive_rate() -> None:
    point = operating_point([1.0, 1.0, 1.0], [1.0] * 50 + [0.0] * 50, 0.1)
    assert (point.false_positives, point.true_positives) == (0, 0)


def test_the_threshold_is_paid_for() -> None:
    """Scores that say nothing: the upper bound of the false-positive rate covers the true one.

    The threshold is the order statistic 3 of 199, so that the true rate is Beta(3, 197). With 400
    repetitions the bound (error 1e-9 each) fails once with probability under 4e-7.
    """
    generator = np.random.default_rng(5)
    for _ in range(400):
        outside = generator.uniform(size=199)
        point = operating_point([0.5], outside, 0.011, confidence=1.0 - 2e-9)
        assert point.false_high >= 1.0 - point.threshold


def test_two_gaussians_reach_their_curve_and_refute_a_smaller_claim_only() -> None:
    """N(0, 1) against N(1.5, 1), 20,000 trials a side; bounds with error 1e-7 each."""
    generator = np.random.default_rng(11)
    outside, inside = generator.normal(size=20_000), generator.normal(1.5, size=20_000)
    for rate in (1e-3, 1e-2, 0.1):
        point = operating_point(inside, outside, rate, confidence=1.0 - 2e-7)
        truth = norm.cdf(norm.ppf(point.false_high) + 1.5)
        assert point.low <= truth
        assert not point.exceeds(Claim(100.0, 0.0, 1.5))
        assert 0.0 < point.mu <= 1.5
    assert point.exceeds(Claim(100.0, 0.0, 1.2))
    assert point.mu == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("scores", [[], [np.nan], [np.inf], [[1.0]]])
def test_scores_that_are_none_are_refused(scores) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        operating_point([1.0], scores, 0.1)
