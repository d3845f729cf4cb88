"""What one client may spend, said as ε."""

from __future__ import annotations

from ktan.errors import UserError
from privacy import gaussian
from privacy.accounting import budget_units
from privacy.budget import BudgetPlan


def cap_units(plan: BudgetPlan, epsilon: float) -> int:
    """The units with which one client's answers alone would reach `epsilon`, at the plan's δ."""
    if not 0 < epsilon <= plan.epsilon:
        raise UserError(f"a cap of ε = {epsilon:g} must lie above 0 and within {plan.epsilon:g}")
    return budget_units(gaussian.mu(epsilon, plan.ideal_target[1]))
