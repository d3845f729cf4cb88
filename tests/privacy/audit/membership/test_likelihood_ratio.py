"""LiRA, where the best attack is known in closed form."""

import numpy as np
import pytest
from scipy.stats import norm

from privacy.audit.membership.likelihood_ratio import fit
from privacy.audit.membership.roc import operating_point

RUNS, TARGETS, TRIALS = 2000, 8, 25_000


def shadow_runs(generator, mu):
    member = generator.random((RUNS, TARGETS)) < 0.5
    return generator.normal(size=(RUNS, TARGETS)) + mu * member, member


@pytest.mark.parametrize("score", ["log_ratio", "offline"])
def test_two_gaussians_are_told_apart_as_well_as_can_be(score) -> None:
    """TPR at FPR is Φ(Φ⁻¹(α) + μ), for N(0, 1) against N(μ, 1).

    25,000 × 8 trials a side: TPR and FPR each lie in Clopper-Pearson bounds with error 1e-8, and
    a thousand shadow runs a side know mean and deviation to a few per cent, which at these rates
    moves μ by less than 0.06 (a Gaussian's quadratic score differs little from its linear one).
    """
    generator, mu = np.random.default_rng(3), 2.0
    attack = getattr(fit(*shadow_runs(generator, mu)), score)
    inside = attack(generator.normal(mu, size=(TRIALS, TARGETS))).ravel()
    outside = attack(generator.normal(size=(TRIALS, TARGETS))).ravel()
    for rate in (1e-3, 1e-2, 0.1):
        point = operating_point(inside, outside, rate, confidence=1.0 - 2e-8)
        assert point.low <= norm.cdf(norm.ppf(point.false_high) + mu)
        assert point.high >= norm.cdf(norm.ppf(rate) + mu - 0.06) - 0.01


def test_an_offline_attack_never_needs_the_target() -> None:
    generator = np.random.default_rng(4)
    shadow = generator.normal(3.0, 2.0, size=(RUNS, TARGETS))
    fitted = fit(shadow, np.zeros((RUNS, TARGETS), dtype=bool))
    scores = fitted.offline(np.array([3.0, 7.0])[:, None] * np.ones(TARGETS))
    # −log Pr[N(3, 2²) > 3] = log 2, and > 7 is two deviations out.
    np.testing.assert_allclose(scores[0], np.log(2.0), atol=0.3)
    np.testing.assert_allclose(scores[1], -norm.logsf(2.0), atol=0.8)
    with pytest.raises(ValueError, match="offline"):
        fitted.log_ratio(np.zeros(TARGETS))


def test_known_noise_is_added_and_not_learnt() -> None:
    """Clean shadow answers N(0, .6²) or N(1, .6²); the service adds N(0, .8²): in all N(·, 1)."""
    generator = np.random.default_rng(6)
    member = generator.random((RUNS, TARGETS)) < 0.5
    fitted = fit(generator.normal(member.astype(float), 0.6), member)
    observed = np.linspace(-3.0, 4.0, 15)[:, None] * np.ones(TARGETS)
    expected = norm.logpdf(observed, 1.0, 1.0) - norm.logpdf(observed, 0.0, 1.0)
    np.testing.assert_allclose(fitted.log_ratio(observed, 0.8), expected, atol=1.0)
    without = norm.logpdf(observed, 1.0, 0.6) - norm.logpdf(observed, 0.0, 0.6)
    assert np.abs(expected - without).max() > 4.0


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        fit(np.zeros((3, 1)), np.array([[True], [False], [False]]))
    with pytest.raises(ValueError, match="both"):
        fit(np.zeros((3, 1)), np.zeros((3, 2), dtype=bool))
