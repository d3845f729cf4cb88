"""What a verification of a ledger came to, for a screen or a machine."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from privacy.audit.evidence_check import epsilon_of
from privacy.audit.log import Recorded
from privacy.audit.violations import Violation
from privacy.key_history import KeyHistory
from privacy.ledger.accounts import Accounts, Opening
from privacy.receipts import SignedHead

REHEARSAL: Final = "rehearsal"
"""The data set that the ledger of a rehearsal names. A data set's own id has a slash in it."""


@dataclass(frozen=True)
class ClientReport:
    """One client. Units of μ²·2⁴⁰; epsilon: of what this client alone was answered, at δ.

    left: what it may still spend, under its cap and the global budget.
    """

    client: str
    spent: int
    left: int
    cap: int | None
    requests: int
    new_answers: int
    epsilon: float | None


@dataclass(frozen=True)
class LedgerReport:
    """Outcome of a verification. Sound when there is no violation.

    source: where the log was read from. key_source: where its key is known from.
    """

    source: str
    ledger_id: str
    keys: KeyHistory
    key_source: str
    opening: Opening | None
    entries: int
    times: tuple[str, str] | None
    head: SignedHead | None
    spent: int
    draws: int
    training_used: int
    epsilon_spent: float | None
    clients: tuple[ClientReport, ...]
    receipts: int
    heads: int
    violations: tuple[Violation, ...]

    @property
    def sound(self) -> bool:
        """True when nothing contradicts anything."""
        return not self.violations

    @property
    def rehearsal(self) -> bool:
        """True for the throw-away ledger of synthetic teachers: it promises nothing."""
        return self.opening is not None and self.opening.dataset_id == REHEARSAL


def client_reports(accounts: Accounts, chain: dict[int, Recorded]) -> tuple[ClientReport, ...]:
    """One line a client, by name."""
    plan = accounts.opening.plan
    left = max(0, plan.answer_units - accounts.spent)
    names = sorted(accounts.client_spent.keys() | accounts.caps.keys())
    requests: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for number, item in chain.items():
        if item.entry.kind == "answers":
            requests[item.entry.client] += 1
            answers[item.entry.client] += accounts.new_answers.get(number, 0)
    reports = []
    for name in names:
        spent, cap = accounts.client_spent.get(name, 0), accounts.cap(name)
        reports.append(
            ClientReport(
                client=name,
                spent=spent,
                left=left if cap is None else min(left, max(0, cap - spent)),
                cap=cap,
                requests=requests[name],
                new_answers=answers[name],
                epsilon=epsilon_of(plan, spent),
            )
        )
    return tuple(reports)
