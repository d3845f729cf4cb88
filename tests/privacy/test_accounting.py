"""Charges and budgets are integers, exactly."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.accounting import (
    MAX_RADIUS,
    SIGMA,
    budget_units,
    charge_units,
    mu_of_units,
)


@given(st.floats(0.0, 1e3))
def test_a_budget_is_the_floor_of_mu_squared(mu: float) -> None:
    units = budget_units(mu)
    assert Fraction(units, SIGMA**2) <= Fraction(mu) ** 2 < Fraction(units + 1, SIGMA**2)


@given(st.integers(0, 2**62))
def test_mu_of_units_is_the_square_root(units: int) -> None:
    assert mu_of_units(units) ** 2 * SIGMA**2 == pytest.approx(units, rel=1e-15)


@pytest.mark.parametrize("radius", [1, 7, 25_000, MAX_RADIUS])
def test_a_charge_is_the_rho_that_opendp_gives_the_same_sensitivity(radius: int) -> None:
    """OpenDP maps an L2 sensitivity Δ to zero-concentrated ρ = Δ²/(2σ²) = μ²/2."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    measure = dp.m.make_gaussian(*space, scale=float(SIGMA))
    for kind, sensitivity in (
        ("logits", 2.0 * radius),
        ("hint", 2.0 * radius),
        ("probabilities", math.sqrt(2.0) * radius),
    ):
        rho = measure.map(sensitivity)
        assert charge_units(kind, radius) / SIGMA**2 == pytest.approx(2.0 * rho, rel=1e-12)


@given(st.lists(st.integers(1, 2**20), min_size=1, max_size=50), st.floats(0.01, 5.0))
def test_charges_admitted_by_the_integer_limit_never_pass_mu_max(
    radii: list[int], mu_max: float
) -> None:
    budget, spent = budget_units(mu_max), 0
    for radius in radii:
        charge = charge_units("logits", radius)
        if spent + charge <= budget:
            spent += charge
    assert Fraction(spent, SIGMA**2) <= Fraction(mu_max) ** 2


def test_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="radius"):
        charge_units("hint", MAX_RADIUS + 1)
    with pytest.raises(ValueError, match="mu_max"):
        budget_units(math.nan)
    with pytest.raises(ValueError, match="units"):
        mu_of_units(-1)
