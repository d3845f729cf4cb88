"""What a set of queries will cost, said before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from privacy import gaussian
from student_client.description import Budget, TeacherDescription
from student_client.errors import BudgetRefused

_UNITS_OF_MU_SQUARED: Final = 2**40
"""Charges on the wire are integers, in units of μ²/2⁴⁰."""


@dataclass(frozen=True)
class Quote:
    """The price of new answers to `samples` samples."""

    samples: int
    taps: tuple[str, ...]
    """What is asked of them, where it is not here already."""
    each: int
    """Charge of one sample with all these taps."""
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
            "taps": list(self.taps),
            "charge_per_sample": self.each,
            "charge": self.charge,
            "left_before": self.budget.client_left,
            "epsilon_before": self.budget.epsilon_spent,
            "epsilon_after": self.epsilon_after,
            "epsilon_budget": self.budget.epsilon_budget,
        }


def quote(
    description: TeacherDescription,
    budget: Budget,
    samples: int | Mapping[tuple[str, ...], int],
) -> Quote:
    """The price of samples that were never answered before.

    samples: their number, of which every tap is asked; or taps → the number of which these are.
    """
    wanted = {description.tap_names: samples} if isinstance(samples, int) else dict(samples)
    asked = {name for taps in wanted for name in taps}
    names = tuple(name for name in description.tap_names if name in asked)
    charge = sum(count * description.charge_of(taps) for taps, count in wanted.items())
    return Quote(
        samples=sum(wanted.values()),
        taps=names,
        each=description.charge_of(names),
        charge=charge,
        draws=sum(count * description.draws_of(taps) for taps, count in wanted.items()),
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


def require_affordable(price: Quote) -> None:
    """Raises BudgetRefused when what is left does not cover the price, with what it would cover."""
    left = price.budget.client_left
    if price.charge > left:
        within = left * price.samples // price.charge
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
        within = price.budget.draws_left * price.samples // price.draws
        raise BudgetRefused(
            f"the plan's noise draws do not cover {price.samples:,} new answers: they need "
            f"{price.draws:,}, {price.budget.draws_left:,} are left, enough for {within:,}",
            price.draws,
            price.budget.draws_left,
        )


def _mu(units: int) -> float:
    return math.sqrt(units / _UNITS_OF_MU_SQUARED)
