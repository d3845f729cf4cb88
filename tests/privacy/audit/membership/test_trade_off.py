"""The caps, against other ways to the same numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import gaussian
from privacy.audit.membership.trade_off import Claim, approximate_cap, gaussian_cap

RATES = np.concatenate([np.geomspace(1e-9, 0.5, 60), 1.0 - np.geomspace(0.5, 1e-9, 60)])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 5.0])
def test_pure_privacy_is_capped_by_randomised_response(epsilon) -> None:
    """Randomised response reaches the cap at its own false-positive rate, and no more."""
    wrong = 1.0 / (1.0 + math.exp(epsilon))
    assert approximate_cap(wrong, epsilon, 0.0) == pytest.approx(1.0 - wrong, rel=1e-12)


def test_the_cap_is_the_envelope_of_the_inequalities_of_differential_privacy() -> None:
    """Brute force: the largest p on a grid that breaks none of the four inequalities."""
    epsilon, delta = 1.3, 0.02
    grid = np.linspace(0.0, 1.0, 200_001)
    for alpha in (0.0, 1e-3, 0.1, 0.4, 0.9, 0.99):
        allowed = (
            (grid <= math.exp(epsilon) * alpha + delta + 1e-12)
            & (alpha <= math.exp(epsilon) * grid + delta + 1e-12)
            & (1 - grid <= math.exp(epsilon) * (1 - alpha) + delta + 1e-12)
            & (1 - alpha <= math.exp(epsilon) * (1 - grid) + delta + 1e-12)
        )
        assert approximate_cap(alpha, epsilon, delta) == pytest.approx(
            grid[allowed].max(), abs=1e-5
        )


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.6])
def test_the_gaussian_cap_is_the_envelope_of_its_own_epsilons(mu) -> None:
    """μ-GDP is the intersection of all its (ε, δ(ε)): Dong, Roth & Su 2022, Proposition 2.12."""
    rates = np.array([1e-3, 1e-2, 0.1, 0.3])
    epsilons = np.linspace(0.0, 8.0, 4001)
    envelope = np.min(
        [approximate_cap(rates, e, gaussian.delta(float(e), mu)) for e in epsilons], axis=0
    )
    exact = gaussian_cap(rates, mu)
    assert (exact <= envelope + 1e-12).all()
    np.testing.assert_allclose(exact, envelope, rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(epsilon=st.floats(0.0, 1e3), delta=st.floats(0.0, 1.0), mu=st.floats(0.0, 50.0))
def test_every_cap_is_a_concave_rising_curve_above_the_diagonal(epsilon, delta, mu) -> None:
    for curve in (approximate_cap(RATES, epsilon, delta), gaussian_cap(RATES, mu)):
        assert ((curve >= RATES - 1e-12) & (curve <= 1.0)).all()
        assert (np.diff(curve) >= -1e-12).all()
    for cap in (lambda a: approximate_cap(a, epsilon, delta), lambda a: gaussian_cap(a, mu)):
        middle = cap((RATES[:-1] + RATES[1:]) / 2.0)
        assert (middle >= (cap(RATES[:-1]) + cap(RATES[1:])) / 2.0 - 1e-12).all()


def test_a_claim_takes_the_tighter_cap() -> None:
    mu = gaussian.mu(4.0, 1e-5)
    claim = Claim(4.0, 1e-5, mu)
    assert claim.cap(1e-2) == gaussian_cap(1e-2, mu) < approximate_cap(1e-2, 4.0, 1e-5)
    assert Claim(4.0, 1e-5).cap(1e-2) == approximate_cap(1e-2, 4.0, 1e-5)
    # δ alone, where ε is nothing: a random guess and the share δ.
    assert Claim(0.0, 0.03, mu).cap(1e-2) == pytest.approx(0.04)


@pytest.mark.parametrize("wrong", [(-1.0, 0.1), (1.0, 1.5), (math.nan, 0.1)])
def test_what_is_no_claim_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="not a privacy claim"):
        approximate_cap(0.1, *wrong)
    with pytest.raises(ValueError, match="false-positive rate"):
        gaussian_cap(1.1, 1.0)
