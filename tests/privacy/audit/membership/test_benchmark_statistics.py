"""The statistics that the benchmark's attacks use, where they are known in closed form."""

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.membership_statistics import known_means, logit_confidence, matched, statistic


def test_the_matched_filter_finds_the_direction_and_carries_its_noise() -> None:
    """Difference (1, 0, −2), own deviations (.5, .5, 1), noise 1: weights ∝ difference/variance."""
    generator = np.random.default_rng(8)
    member = generator.random((20_000, 2)) < 0.5
    clean = generator.normal(size=(20_000, 2, 3)) * [0.5, 0.5, 1.0]
    clean += member[..., None] * np.array([1.0, 0.0, -2.0])
    weights, noise_sd = matched(clean, member, 1.0)
    expected = np.array([1.0 / 1.25, 0.0, -2.0 / 2.0])
    for found in weights:
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=0.05)
    np.testing.assert_allclose(noise_sd, 1.0)
    np.testing.assert_allclose(
        statistic(clean, weights)[5], (clean[5] * weights).sum(axis=1), rtol=1e-12
    )


def test_who_knows_all_but_one_has_the_gaussian_ratio() -> None:
    generator = np.random.default_rng(9)
    inside, outside = generator.normal(size=(2, 5, 7))
    observed = generator.normal(size=(5, 7))
    expected = norm.logpdf(observed, inside, 0.3) - norm.logpdf(observed, outside, 0.3)
    np.testing.assert_allclose(
        known_means(observed, inside, outside, 0.3), expected.sum(axis=1), rtol=1e-9
    )
    with pytest.raises(ValueError, match="without noise"):
        known_means(observed, inside, outside, 0.0)


def test_the_logit_is_finite_and_exact() -> None:
    assert logit_confidence(0.9) == pytest.approx(np.log(9.0))
    assert np.isfinite(logit_confidence([0.0, 1.0])).all()


def test_no_direction_is_found_without_a_member() -> None:
    with pytest.raises(ValueError, match="no shadow run"):
        matched(np.zeros((4, 1, 2)), np.zeros((4, 1), dtype=bool), 1.0)
