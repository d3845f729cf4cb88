"""Where a ledger stands: its totals and a client's line, in the words of its promise."""

from privacy.budget import BudgetPlan, spent_epsilon
from privacy.ledger.lookup import Account, Totals
from privacy.ledger.settlement import BudgetState


def budget_state(
    plan: BudgetPlan, totals: Totals, account: Account, rolled_back: str | None
) -> BudgetState:
    """What is spent and left; nothing is left in a ledger that may be an old copy."""
    lost = rolled_back is not None
    left = 0 if lost else totals.budget - totals.spent
    limit = account.limit
    under_cap = left if limit is None else max(0, limit - account.spent)
    return BudgetState(
        spent=totals.spent,
        left=left,
        budget=totals.budget,
        cap=limit,
        client_spent=account.spent,
        client_left=min(left, under_cap),
        epsilon_spent=plan.epsilon if lost else spent_epsilon(plan, totals.spent),
        draws_left=0 if lost else totals.draws_budget - totals.draws,
        promise=plan.promise,
        rolled_back=rolled_back,
    )
