"""Does the log hold together, and with everything that others hold?

Offline and from public things only: the log, the public key, receipts and heads. What is checked:

    chain       every entry hashes to what is written beside it, and names the one before it
    head        the log ends where its signature says, and no sooner than any head or receipt
    receipts    each is signed, and names the very entry that the log has under that number
    accounts    charges add up, no limit was passed, no request was charged twice
    plan        budget and reserved training are (ε, δ)-DP together, computed anew

A log can prove none of: that noise was added, that shards were disjoint, that the private data are
the ones that the ledger was opened for (docs/auditing.md).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from privacy.audit.chain_check import check_links, check_own_head, order
from privacy.audit.evidence_check import check_kept_head, check_receipts, epsilon_of
from privacy.audit.log import Log, Recorded
from privacy.audit.violations import Findings, Violation
from privacy.budget import verify_plan
from privacy.errors import InvalidPlan
from privacy.ledger.accounts import Accounts, Opening
from privacy.receipts import Receipt, SignedHead


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
    """Outcome of a verification. Sound when there is no violation."""

    ledger_id: str
    public_key: bytes
    key_source: str
    opening: Opening | None
    entries: int
    times: tuple[str, str] | None
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


def check(
    log: Log,
    *,
    receipts: Sequence[tuple[Path, Receipt]] = (),
    heads: Sequence[tuple[Path, SignedHead]] = (),
    damaged: Sequence[tuple[Path, str]] = (),
    tables: Sequence[tuple[int | None, str]] = (),
    public_key: bytes | None = None,
    key_source: str = "--public-key",
) -> LedgerReport:
    """Verifies a log against itself and against all evidence at hand.

    damaged: receipts that cannot be read. tables: `log.folder_faults`, on the ledger's own host.
    public_key: the key that the auditor knows to be the ledger's; without it the log's own word is
    taken, and a log that was rewritten under another key can only be told by receipts.
    """
    findings = Findings()
    for line, why in log.faults:
        findings.add("unreadable", None, f"line {line} of the log cannot be read: {why}")
    key = _settle_key(log, public_key, key_source, findings)
    chain = order(log.recorded, findings)
    check_links(chain, findings)
    opening = _read_opening(chain, log, findings)
    accounts = _replay(chain, opening, findings) if opening is not None else None
    check_own_head(log, chain, key, findings)
    for source, head in heads:
        check_kept_head(source, head, log, chain, key, findings)
    check_receipts(receipts, log, chain, key, opening, findings)
    for source, why in damaged:
        findings.add("receipt", None, f"the receipt in {source} cannot be read: {why}")
    for entry, why in tables:
        where = "the ledger" if entry is None else f"entry {entry}"
        findings.add("tables", entry, f"{where}: {why}")
    spent = accounts.spent if accounts else 0
    return LedgerReport(
        ledger_id=log.ledger_id,
        public_key=key,
        key_source=key_source if public_key is not None else "the log itself",
        opening=opening,
        entries=len(chain),
        times=_times(chain),
        spent=spent,
        draws=accounts.draws if accounts else 0,
        training_used=len(accounts.training) if accounts else 0,
        epsilon_spent=epsilon_of(opening.plan, spent) if opening else None,
        clients=_clients(accounts, chain) if accounts else (),
        receipts=len(receipts),
        heads=len(heads),
        violations=tuple(findings.found),
    )


def _settle_key(log: Log, public_key: bytes | None, key_source: str, findings: Findings) -> bytes:
    if public_key is None or public_key == log.public_key:
        return log.public_key
    findings.add(
        "key",
        None,
        f"the log names the public key {log.public_key.hex()[:16]}…, {key_source} holds "
        f"{public_key.hex()[:16]}…: this is another ledger's log, or one signed by somebody else",
    )
    return public_key


def _read_opening(chain: dict[int, Recorded], log: Log, findings: Findings) -> Opening | None:
    if 0 not in chain:
        return None
    try:
        opening = Opening.of(chain[0].entry)
    except ValueError as error:
        findings.add("unreadable", 0, f"entry 0 cannot be read: {error}")
        return None
    if opening.ledger_id != log.ledger_id or opening.public_key != log.public_key:
        findings.add("edited", 0, "the log's first line names another ledger or key than entry 0")
    try:
        verify_plan(opening.plan)
    except (InvalidPlan, ValueError, ArithmeticError) as error:
        findings.add("plan", 0, f"the plan does not keep its promise: {error}")
    return opening


def _replay(chain: dict[int, Recorded], opening: Opening, findings: Findings) -> Accounts:
    accounts = Accounts(opening)
    for number, item in chain.items():
        # After a gap the totals cannot follow; the gap itself is reported.
        follows = number == 0 or number - 1 in chain
        for fault in accounts.apply(item.entry):
            if follows:
                findings.add("accounts", number, f"entry {number} does not add up: {fault}")
    return accounts


def _clients(accounts: Accounts, chain: dict[int, Recorded]) -> tuple[ClientReport, ...]:
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


def _times(chain: dict[int, Recorded]) -> tuple[str, str] | None:
    entries = [item.entry for item in chain.values()]
    return (entries[0].time, entries[-1].time) if entries else None
