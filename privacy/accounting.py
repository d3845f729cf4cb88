"""Exact integer accounting of Gaussian answers.

Every tap of every version is perturbed by integer noise of the one standard deviation SIGMA, after
quantising to an integer vector of radius R (privacy/quantising.py). One release of L2 sensitivity
Δ is (Δ/SIGMA)-GDP, and adaptive releases compose by adding μ² = Δ²/SIGMA² up to a fixed limit
(docs/privacy/promise.md, "The filter"; Smith & Thakurta 2022; Koskela et al. 2022). In units of
SIGMA⁻² = 2⁻⁴⁰ every μ² is the integer Δ², so that neither a charge nor a limit is ever rounded
after it was fixed.
"""

import math
from fractions import Fraction
from typing import Final, Literal

Kind = Literal["logits", "probabilities", "hint", "tsl", "attention", "signs", "products"]
"""What a tap is. To the accounting all but `probabilities` are vectors in an L2 ball."""

NAMES_CLASSES: Final[tuple[Kind, ...]] = ("logits", "probabilities")
"""The kinds with a value for each class; the others are features, or derived from features."""

SIGMA = 2**20
"""Standard deviation of the integer noise: the same for every tap, version and mode."""

UNITS_PER_MU_SQUARED = SIGMA**2
"""Charge units in μ² = 1."""

MAX_RADIUS = 2**28
"""Largest quantising radius: R² and k·R stay far inside int64 (μ would be 512 already)."""


def sensitivity_squared(kind: Kind, radius: int) -> int:
    """Δ² of the integer sum when one teacher's row is replaced, in grid steps squared.

    Two vectors of the ball of radius R differ by at most 2R: Δ² = 4R². Two non-negative vectors
    whose entries sum to at most R have ⟨q, q'⟩ ≥ 0 and ‖q‖₂ ≤ ‖q‖₁ ≤ R: Δ² = 2R².
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius must lie in [0, {MAX_RADIUS}], not {radius}")
    return (2 if kind == "probabilities" else 4) * radius * radius


def charge_units(kind: Kind, radius: int) -> int:
    """Charge of one answer of one tap, in units of μ²·2⁴⁰: its squared sensitivity."""
    return sensitivity_squared(kind, radius)


def budget_units(mu_max: float) -> int:
    """⌊μ_max²·2⁴⁰⌋, exactly: the charges that a μ_max-GDP budget covers."""
    if not (math.isfinite(mu_max) and mu_max >= 0.0):
        raise ValueError(f"mu_max must be finite and at least 0, not {mu_max}")
    return math.floor(Fraction(mu_max) ** 2 * UNITS_PER_MU_SQUARED)


def mu_of_units(units: int) -> float:
    """μ of the composition of answers whose charges sum to `units`, to the nearest float."""
    if units < 0:
        raise ValueError(f"units must be at least 0, not {units}")
    return math.sqrt(units) / SIGMA
