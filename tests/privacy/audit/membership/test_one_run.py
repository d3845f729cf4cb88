"""The one-run theorem, against exact fractions, a published value, and a known mechanism."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom

from privacy.audit.membership.one_run import audit, epsilon_lower_bound, log_p_value


def exact_p_value(m: int, r: int, v: int, odds: Fraction, delta: Fraction) -> Fraction:
    """The theorem in rational arithmetic; `odds` is e^ε."""
    q = odds / (1 + odds)
    law = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    alpha = max((sum(law[v - i : v]) / i for i in range(1, v + 1)), default=Fraction(0))
    return min(Fraction(1), sum(law[v:]) + 2 * m * delta * alpha)


@pytest.mark.parametrize(
    ("m", "r", "v"), [(50, 20, 15), (50, 20, 20), (50, 20, 0), (40, 40, 31), (60, 1, 1)]
)
@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1, 10**5), Fraction(1, 100)])
def test_the_p_value_is_that_of_exact_fractions(m, r, v, delta) -> None:
    for odds in (Fraction(1), Fraction(3, 2), Fraction(20)):
        expected = exact_p_value(m, r, v, odds, delta)
        found = log_p_value(m, r, v, math.log(odds), float(delta))
        assert math.exp(found) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
    ids=["appendix D", "section 7"],
)
def test_the_published_examples(m, r, v, delta, published) -> None:
    """Steinke et al. 2023, printed to three digits, at 95 %."""
    assert epsilon_lower_bound(m, r, v, delta, 0.95) == pytest.approx(published, abs=1e-3)


def test_far_tails_stay_numbers() -> None:
    p = log_p_value(100_000, 50_000, 50_000, 1.0, 0.0)
    assert p == pytest.approx(50_000 * -math.log1p(math.exp(-1.0)), rel=1e-9)
    assert math.isfinite(epsilon_lower_bound(100_000, 50_000, 50_000, 1e-10))


def test_without_delta_it_is_the_binomial_bound() -> None:
    bound = epsilon_lower_bound(400, 400, 320, 0.0, 0.95)
    accuracy = 1.0 / (1.0 + math.exp(-bound))
    assert binom.sf(319, 400, accuracy) == pytest.approx(0.05, rel=1e-6)
    assert epsilon_lower_bound(400, 400, 200, 0.0) == 0.0
    assert epsilon_lower_bound(400, 400, 0, 0.0) == 0.0


@pytest.mark.parametrize("truth", [0.5, 2.0])
def test_randomised_response_is_bounded_from_below_and_closely(truth) -> None:
    """Each coin is told truly with probability e^ε/(1 + e^ε): exactly ε-DP.

    One large run: 40,000 guesses, at confidence 1 − 1e-8. The bound lies under the truth but for
    1e-8, and within 0.12 of it: the accuracy's own deviation, at most 0.0025, is a sixth of what
    that takes. Then the share of small runs at 95 % that overshoot: among 100 the number that do is
    at most Bin(100, .05), which passes 22 with probability under 1e-8.
    """
    generator = np.random.default_rng(21)
    accuracy = 1.0 / (1.0 + math.exp(-truth))

    def run(canaries: int, confidence: float) -> float:
        coins = generator.random(canaries) < 0.5
        told = coins ^ (generator.random(canaries) >= accuracy)
        # A little more than the bit, so that no two scores are equal.
        scores = told + 0.1 * generator.random(canaries)
        # Fixed beforehand: a quarter from each end.
        quarter = canaries // 4
        return audit(
            scores, coins, positive=quarter, negative=quarter, delta=0.0, confidence=confidence
        ).epsilon

    assert binom.sf(22, 100, 0.05) < 1e-8
    large = run(80_000, 1.0 - 1e-8)
    assert truth - 0.12 < large <= truth
    assert sum(run(200, 0.95) > truth for _ in range(100)) <= 22


def test_guesses_are_the_highest_and_the_lowest() -> None:
    scores = np.array([0.1, 5.0, 0.2, 4.0, 2.0, 2.1])
    coins = np.array([False, True, True, True, False, True])
    result = audit(scores, coins, positive=2, negative=2, delta=1e-5)
    assert (result.canaries, result.guesses, result.right) == (6, 4, 3)
    assert not result.exceeds(0.5)


def test_a_memorised_run_refutes_a_small_claim() -> None:
    coins = np.arange(400) % 2 == 0
    result = audit(coins.astype(float), coins, positive=100, negative=100, delta=1e-5)
    assert result.right == 200
    assert result.exceeds(3.0)
    assert not result.exceeds(5.0)


def test_what_cannot_be_audited_is_refused() -> None:
    coins = np.array([True, False])
    with pytest.raises(ValueError, match="guesses"):
        audit([1.0, 2.0], coins, positive=2, negative=1, delta=0.0)
    with pytest.raises(ValueError, match="bool"):
        audit([1.0, 2.0], [1, 0], positive=1, negative=1, delta=0.0)
    with pytest.raises(ValueError, match="finite"):
        audit([1.0, np.nan], coins, positive=1, negative=1, delta=0.0)
    with pytest.raises(ValueError, match="guesses"):
        log_p_value(10, 5, 6, 1.0, 0.0)
