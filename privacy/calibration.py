"""From a budget to release settings: the radius R of each tap.

σ is one constant, so that the quantising radius is the free parameter: a larger R means less noise
in real units (σ·B/(R·k)) and a larger charge (4R², or 2R² for probabilities).
"""

import math
from collections.abc import Mapping
from fractions import Fraction

from privacy.accounting import MAX_RADIUS, Kind, charge_units
from privacy.errors import InvalidPlan


def radii(
    budget_units: int,
    answers: int,
    shares: Mapping[str, float],
    kinds: Mapping[str, Kind],
) -> dict[str, int]:
    """The largest radius of each tap with which `answers` answers never pass the budget.

    budget_units: what may be spent, in units of μ²·2⁴⁰.
    answers: samples that are to be answered, with every tap of `shares`.
    shares: tap name → weight > 0 of the budget (of μ², the quantity that adds up).
    kinds: tap name → kind, for at least the taps of `shares`.

    answers · Σ charge(R) ≤ budget_units holds in integers. Raises InvalidPlan where a share, the
    number of answers or the budget leaves a tap no grid step.
    """
    if answers < 1:
        raise InvalidPlan(f"the number of answers must be at least 1, not {answers}")
    if not shares:
        raise InvalidPlan("no tap has a share of the budget")
    for name, share in shares.items():
        if not (math.isfinite(share) and share > 0.0):
            raise InvalidPlan(f"the share of tap {name!r} must be above 0, not {share}")
        if name not in kinds:
            raise InvalidPlan(f"there is no tap {name!r}; the taps are {', '.join(kinds)}")
    per_answer = budget_units // answers
    whole = sum((Fraction(share) for share in shares.values()), Fraction(0))
    result: dict[str, int] = {}
    for name, share in shares.items():
        units = math.floor(per_answer * Fraction(share) / whole)
        # charge(R) = c·R² ≤ units  ⇔  R ≤ ⌊√⌊units/c⌋⌋
        radius = min(math.isqrt(units // charge_units(kinds[name], 1)), MAX_RADIUS)
        if radius < 1:
            raise InvalidPlan(
                f"{budget_units} charge units over {answers} answers leave tap {name!r} nothing; "
                f"ask for fewer answers, raise its share or open a larger budget"
            )
        result[name] = radius
    return result
