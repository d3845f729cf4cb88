"""Secret draws have the stated distribution and never repeat; α = 1e-6 for each test."""

import numpy as np
import scipy.stats
import torch

from teacher_server.training.secret_noise import SecretNoise

ALPHA = 1e-6


def test_normal_draws_are_standard_normal_and_independent():
    draws = SecretNoise().normal((100_001,))
    assert draws.dtype == torch.float32
    values = draws.double().numpy()
    assert scipy.stats.kstest(values, "norm").pvalue > ALPHA
    # The two halves come from the same pairs of uniforms.
    half = len(values) // 2
    assert scipy.stats.pearsonr(values[:half], values[half : 2 * half]).pvalue > ALPHA
    squares = values**2
    assert scipy.stats.pearsonr(squares[:half], squares[half : 2 * half]).pvalue > ALPHA


def test_uniform_draws_are_uniform_and_below_one():
    draws = SecretNoise().uniform((7, 20_000))
    assert (draws.shape, draws.dtype) == ((7, 20_000), torch.float32)
    assert 0.0 <= float(draws.min()) <= float(draws.max()) < 1.0
    values = draws.double().numpy()
    assert scipy.stats.kstest(values.ravel(), "uniform").pvalue > ALPHA
    assert scipy.stats.pearsonr(values[0], values[1]).pvalue > ALPHA


def test_poisson_sampling_takes_each_with_its_rate_on_its_own():
    noise = SecretNoise()
    counts = np.array([len(noise.sampled(2000, 0.05)) for _ in range(500)])
    assert scipy.stats.binomtest(int(counts.sum()), 500 * 2000, 0.05).pvalue > ALPHA
    # Sizes vary as a binomial's do: fixed-size sampling would be another mechanism.
    statistic = counts.var(ddof=1) / (2000 * 0.05 * 0.95) * 499
    tail = min(scipy.stats.chi2.cdf(statistic, 499), scipy.stats.chi2.sf(statistic, 499))
    assert tail > ALPHA / 2


def test_extreme_rates():
    noise = SecretNoise()
    assert noise.sampled(50, 1.0).tolist() == list(range(50))
    assert len(noise.sampled(50, 0.0)) == 0


def test_no_seed_repeats_it():
    torch.manual_seed(0)
    np.random.seed(0)
    first = SecretNoise().normal((8,))
    torch.manual_seed(0)
    np.random.seed(0)
    assert not torch.equal(first, SecretNoise().normal((8,)))
    source = SecretNoise()
    assert not torch.equal(source.normal((8,)), source.normal((8,)))


def test_shapes():
    assert SecretNoise().normal((3, 4, 5)).shape == (3, 4, 5)
    assert SecretNoise().normal(()).shape == ()
