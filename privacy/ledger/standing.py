"""Where a ledger stands: its totals and a client's line, what they still cover, and in words."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from privacy.budget import BudgetPlan, spent_epsilon
from privacy.errors import BudgetExhausted
from privacy.ledger.settlement import BudgetState


@dataclass(frozen=True)
class Account:
    """A client's line: units spent, and its own cap (None: the default one).

    limit: the cap in force; None where only the global budget limits.
    """

    client: str
    spent: int = 0
    cap: int | None = None
    default_cap: int | None = None

    @property
    def limit(self) -> int | None:
        """The cap in force."""
        return self.default_cap if self.cap is None else self.cap

    def plus(self, charge: int) -> "Account":
        """After this charge."""
        return Account(self.client, self.spent + charge, self.cap, self.default_cap)


@dataclass(frozen=True)
class Totals:
    """What was spent of the ledger's two limits, in units of μ²·2⁴⁰ and in noise draws."""

    budget: int
    spent: int
    draws_budget: int
    draws: int

    @classmethod
    def of(cls, state: Row[Any]) -> "Totals":
        """Those in the row of `state`."""
        return cls(state.budget, state.spent, state.draws_budget, state.draws)

    def plus(self, charge: int, draws: int) -> "Totals":
        """After this charge and these draws."""
        return Totals(self.budget, self.spent + charge, self.draws_budget, self.draws + draws)

    def require(self, account: Account, charge: int, draws: int) -> None:
        """Raises BudgetExhausted naming the limit that does not cover this charge."""
        refusal = self.refusal(account, charge, draws)
        if refusal is not None:
            raise refusal

    def refusal(self, account: Account, charge: int, draws: int) -> BudgetExhausted | None:
        """What `require` raises."""
        left = self.budget - self.spent
        if charge > left:
            remedy = (
                "ask for fewer new samples" if left else "no new sample can be answered any more"
            )
            return BudgetExhausted(charge, left, "the ledger's answering budget", remedy)
        if charge and account.limit is not None and charge > account.limit - account.spent:
            return BudgetExhausted(
                charge,
                max(0, account.limit - account.spent),
                f"the cap of client {account.client!r}",
                "ask for fewer new samples, or have the custodian raise the cap",
            )
        if draws > self.draws_budget - self.draws:
            return BudgetExhausted(
                draws,
                self.draws_budget - self.draws,
                "the ledger's limit on noise draws",
                "ask for fewer new samples",
            )
        return None


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
