"""The noise: its law, and the proof of what its imperfection costs, by numbers.

Statistical tests reject at α = 1e-7 each; together they fail by chance less than once in a
million runs.
"""

import math
import random

import mpmath
import numpy as np
import pytest
from scipy import stats

from privacy.accounting import SIGMA
from privacy.noise import (
    DEFAULT_NOISE,
    ETA,
    TAU,
    Closeness,
    DiscreteGaussian,
    RoundedGaussian,
    closeness,
    discrete_gaussian_closeness,
    ideal_target,
    noise_delta,
    noise_epsilon,
    source,
)

ALPHA = 1e-7


def discrete_law(sigma: int, reach: int) -> list[mpmath.mpf]:
    """P(x) for x = 0..reach of the discrete Gaussian, normalised over ±60σ."""
    weights = [mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * sigma**2)) for x in range(60 * sigma)]
    total = weights[0] + 2 * sum(weights[1:])
    return [weight / total for weight in weights[: reach + 1]]


def rounded_law(sigma: int, reach: int) -> list[mpmath.mpf]:
    """P(round(N(0, σ²)) = x) for x = 0..reach; the upper tail keeps its digits."""
    half = mpmath.mpf(1) / 2
    tail = [mpmath.ncdf(-(x - half) / sigma) for x in range(reach + 2)]
    return [tail[x] - tail[x + 1] for x in range(reach + 1)]


@pytest.mark.parametrize("sigma", [1, 2, 5, 16])
@pytest.mark.parametrize("reach", [1, 3, 8])
def test_closeness_bounds_the_exact_ratio_and_tails(sigma: int, reach: int) -> None:
    with mpmath.workdps(60):
        eta, tau = discrete_gaussian_closeness(sigma, reach)
        edge = reach * sigma
        p, r = discrete_law(sigma, edge), rounded_law(sigma, edge)
        worst = max(abs(mpmath.log(a / b)) for a, b in zip(p, r, strict=True))
        assert worst <= eta
        for law in (p, r):
            assert 1 - (law[0] + 2 * sum(law[1:])) <= tau
    # Not a vacuous bound: it is tight to the first order where the reach dominates.
    if reach == 8 and sigma >= 5:
        assert worst > 0.2 * eta


def test_the_counted_constants_cover_the_sampler() -> None:
    eta, tau = discrete_gaussian_closeness(SIGMA, 36.0)
    assert eta <= ETA == DiscreteGaussian.closeness.eta
    assert tau <= TAU == DiscreteGaussian.closeness.tau


@pytest.mark.parametrize("draws", [1, 4, 20])
def test_composed_real_noise_keeps_what_the_bound_says(draws: int) -> None:
    """δ of n discrete Gaussian answers, by exact convolution of their privacy loss, stays under.

    σ = 4 and sensitivity 3 per answer: coarse enough for the imperfection to show.
    """
    sigma, shift, reach = 4, 3, 6.0
    grid = np.arange(-20 * sigma, 20 * sigma + 1)
    law = np.exp(-(grid**2) / (2 * sigma**2))
    law /= law.sum()
    # The loss at x is shift·(2x − shift)/(2σ²) up to sign: linear in x, hence a lattice.
    total = law.copy()
    for _ in range(draws - 1):
        total = np.convolve(total, law)
    sums = np.arange(total.size) - (total.size - 1) // 2
    loss = (shift**2 * draws - 2 * shift * sums) / (2 * sigma**2)
    eta, tau = discrete_gaussian_closeness(sigma, reach)
    mu = shift * math.sqrt(draws) / sigma
    from privacy import gaussian

    for ideal in (0.1, 1.0, 3.0):
        epsilon = ideal + noise_epsilon(draws, eta)
        real = float(np.sum(total * np.clip(-np.expm1(epsilon - loss), 0.0, None)))
        bound = math.exp(draws * eta) * gaussian.delta(ideal, mu) + noise_delta(draws, epsilon, tau)
        assert real <= bound


def test_the_ideal_target_inverts_the_statement() -> None:
    epsilon, delta = ideal_target(4.0, 1e-5, 1000, Closeness(1e-6, 1e-12))
    assert epsilon == pytest.approx(4.0 - 2e-3)
    back = math.exp(1000 * 1e-6) * delta + noise_delta(1000, epsilon + 1e-3, 1e-12)
    assert back <= 1e-5
    assert back == pytest.approx(1e-5, rel=1e-3)
    assert ideal_target(4.0, 1e-5, 0, DiscreteGaussian.closeness) == (4.0, 1e-5)


def test_total_variation_costs_what_the_design_says() -> None:
    """With η = 0 the statement is n·τ·(1 + e^ε), and it never overflows."""
    assert noise_delta(300, 4.0, 2.0**-45) == pytest.approx(300 * 2.0**-45 * (1 + math.exp(4)))
    assert noise_delta(1, 1e6, 1e-300) == math.inf
    assert noise_delta(0, 1e6, TAU) == 0.0


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    return DiscreteGaussian().sample(60_000)


def test_draws_follow_the_exact_law(draws: np.ndarray) -> None:
    """Kolmogorov-Smirnov against N(0, σ²): at σ = 2²⁰ the lattice is far below its resolution."""
    assert draws.dtype == np.int64
    assert stats.kstest(draws / SIGMA, "norm").pvalue > ALPHA
    edges = stats.norm.ppf(np.linspace(0.0, 1.0, 65)[1:-1])
    counts = np.bincount(np.searchsorted(edges, draws / SIGMA), minlength=64)
    assert stats.chisquare(counts).pvalue > ALPHA


def test_variance_mean_and_low_bits(draws: np.ndarray) -> None:
    n = len(draws)
    variance = float(np.mean((draws / SIGMA) ** 2))
    assert 2 * stats.chi2.cdf(n * variance, n) > ALPHA
    assert 2 * stats.chi2.sf(n * variance, n) > ALPHA
    assert abs(float(np.mean(draws / SIGMA))) < 6.0 / math.sqrt(n)
    # No float carried these: every residue modulo 256 is there, about equally often.
    assert stats.chisquare(np.bincount(draws % 256, minlength=256)).pvalue > ALPHA


def test_neighbouring_draws_are_uncorrelated(draws: np.ndarray) -> None:
    z = draws / SIGMA
    for lag in (1, 2, 10):
        assert abs(float(np.mean(z[:-lag] * z[lag:]))) < 6.0 / math.sqrt(len(z))


def test_no_seed_reaches_the_noise() -> None:
    seen = set()
    for _ in range(3):
        random.seed(0)
        np.random.seed(0)
        seen.add(tuple(DiscreteGaussian().sample(4).tolist()))
    assert len(seen) == 3


def test_counts() -> None:
    assert DiscreteGaussian().sample(0).shape == (0,)
    with pytest.raises(ValueError, match="count"):
        DiscreteGaussian().sample(-1)


def test_sources_are_chosen_by_name() -> None:
    for name, kind in (
        ("rounded-gaussian", RoundedGaussian),
        ("opendp-discrete-gaussian", DiscreteGaussian),
    ):
        chosen = source(name)
        assert type(chosen) is kind
        assert chosen.name == name
        assert chosen.closeness == closeness(name)
    assert DEFAULT_NOISE == "rounded-gaussian"
    for ask in (source, closeness):
        with pytest.raises(ValueError, match="no noise source is called 'laplace'; there are"):
            ask("laplace")


def test_what_was_set_aside_for_a_coarse_source_covers_a_close_one() -> None:
    rounded, discrete = closeness("rounded-gaussian"), closeness("opendp-discrete-gaussian")
    assert discrete.covers(rounded)
    assert discrete.covers(discrete)
    assert not rounded.covers(discrete)
