"""What a set of queries will cost, said before anything is spent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from privacy import gaussian
from student_client.description import Budget, TeacherDescription
from student_client.errors import BudgetRefused

_UNITS_OF_MU_SQUARED: Final = 2**40
"""Charges on the wire are integers, in units of μ²/2⁴⁰."""


@dataclass(frozen=True)
class Quote:
    """The price of `samples` new answers."""

    samples: int
    charge: int
    """Integer charge of all of them together."""
    draws: int
    """Noise draws of all of them together."""
    budget: Budget
    """As it stood when the price was asked."""
    epsilon_after: float | None
    """ε at the promise's δ once they are paid; None where this client cannot know it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "charge": self.charge,
            "left_before": self.budget.client_left,
            "epsilon_before": self.budget.epsilon_spent,
            "epsilon_after": self.epsilon_after,
            "epsilon_budget": self.budget.epsilon_budget,
        }


def quote(description: TeacherDescription, budget: Budget, samples: int) -> Quote:
    """The price of `samples` samples that were never answered before."""
    charge = samples * description.charge
    return Quote(
        samples=samples,
        charge=charge,
        draws=samples * description.draws,
        budget=budget,
        epsilon_after=epsilon_after(budget, charge),
    )


def epsilon_after(budget: Budget, charge: int) -> float | None:
    """ε once `charge` more is spent.

    Pure answering is μ-GDP with μ² = spent charge, on the curve that the whole budget fixes. Where
    training runs share the promise the curve is another one, which only the service can compute:
    then None, and the promise itself is the bound.
    """
    if charge == 0:
        return budget.epsilon_spent
    if budget.budget <= 0 or budget.epsilon_budget <= 0:
        return None
    delta = gaussian.delta(budget.epsilon_budget, _mu(budget.budget))
    if not 0 < delta < 1:
        return None
    same_curve = math.isclose(
        gaussian.epsilon(delta, _mu(budget.spent)),
        budget.epsilon_spent,
        rel_tol=0.01,
        abs_tol=1e-3,
    )
    if not same_curve:
        return None
    return min(gaussian.epsilon(delta, _mu(budget.spent + charge)), budget.epsilon_budget)


def require_affordable(price: Quote, description: TeacherDescription) -> None:
    """Raises BudgetRefused when what is left does not cover the price, with what it would cover."""
    left = price.budget.client_left
    if price.charge > left:
        within = left // description.charge
        capped = left < price.budget.left
        whose = "your cap at the service" if capped else "the privacy budget"
        raise BudgetRefused(
            f"{whose} does not cover {price.samples:,} new answers: they cost {price.charge:,}, "
            f"{left:,} is left, enough for {within:,} new answers; "
            + (f"lower --queries by {price.samples - within:,}" if within else "ask its custodian"),
            price.charge,
            left,
        )
    if price.draws > price.budget.draws_left:
        within = price.budget.draws_left // description.draws
        raise BudgetRefused(
            f"the plan's noise draws do not cover {price.samples:,} new answers: they need "
            f"{price.draws:,}, {price.budget.draws_left:,} are left, enough for {within:,}",
            price.draws,
            price.budget.draws_left,
        )


def _mu(units: int) -> float:
    return math.sqrt(units / _UNITS_OF_MU_SQUARED)
