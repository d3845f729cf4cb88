"""Does the log hold together, and with everything that others hold?

Offline and from public things only: the log, the public key, receipts and heads. What is checked:

    chain       every entry hashes to what is written beside it, and names the one before it
    head        the log ends where its signature says, and no sooner than any head or receipt
    keys        each signing key was endorsed by the one before, from the one that is known
    receipts    each is signed, and names the very entry that the log has under that number
    accounts    charges add up, no limit was passed, no request was charged twice
    plan        budget and reserved training are (ε, δ)-DP together, computed anew, with noise as
                close as a known sampler's and no closer

A log can prove none of: that noise was added, that shards were disjoint, that the private data are
the ones that the ledger was opened for (docs/auditing.md).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from privacy.audit.chain_check import check_links, order
from privacy.audit.evidence_check import EvidenceCheck, epsilon_of
from privacy.audit.key_check import Keys, settle_keys
from privacy.audit.layout import counted
from privacy.audit.ledger_report import REHEARSAL, LedgerReport, client_reports
from privacy.audit.log import Log, Recorded
from privacy.audit.violations import Findings
from privacy.budget import verify_plan
from privacy.errors import InvalidPlan
from privacy.key_history import KeyHistory
from privacy.ledger.accounts import Accounts, Opening
from privacy.noise import sources_within
from privacy.receipts import Receipt, SignedHead


@dataclass
class Verification:
    """A log that was held against itself, and what was found; evidence may be held against it.

    chain: its entries by number. opening, accounts: None where entry 0 cannot be read.
    """

    log: Log
    chain: dict[int, Recorded]
    opening: Opening | None
    accounts: Accounts | None
    keys: Keys
    findings: Findings
    evidence: EvidenceCheck = field(init=False)

    def __post_init__(self) -> None:
        keys = self.keys.of_evidence
        self.evidence = EvidenceCheck(self.log.ledger_id, self.chain, keys, self.opening)


def verify(log: Log, known: Sequence[tuple[str, KeyHistory]] = ()) -> Verification:
    """Verifies a log against itself: chain, sums, plan, keys, its own signed head.

    known: (where from, keys) that the auditor knows to be the ledger's: one to trust, and those
    followed from there. Without any the log's own word is taken, and a log that was rewritten under
    another key can only be told by receipts.
    """
    findings = Findings()
    for line, why in log.faults:
        findings.add("unreadable", None, f"line {line} of the log cannot be read: {why}")
    chain = order(log.recorded, findings)
    check_links(chain, findings)
    opening = _read_opening(chain, log, findings)
    accounts = _replay(chain, opening, findings) if opening is not None else None
    keys = settle_keys(log, accounts, known, findings)
    verification = Verification(log, chain, opening, accounts, keys, findings)
    verification.evidence.own_head(log.head, keys.of_head, findings)
    return verification


def check(
    log: Log,
    *,
    receipts: Sequence[tuple[Path, Receipt]] = (),
    heads: Sequence[tuple[Path, SignedHead]] = (),
    damaged: Sequence[tuple[Path, str]] = (),
    tables: Sequence[tuple[int | None, str]] = (),
    known: Sequence[tuple[str, KeyHistory]] = (),
) -> LedgerReport:
    """Verifies a log against itself and against all evidence at hand.

    damaged: receipts that cannot be read. tables: `log.folder_faults`, on the ledger's own host.
    known: as for `verify`.
    """
    verified = verify(log, known)
    findings, opening, accounts = verified.findings, verified.opening, verified.accounts
    for source, head in heads:
        verified.evidence.kept_head(source, head, findings)
    foreign = Counter(item.ledger_id for _, item in receipts if item.ledger_id != log.ledger_id)
    for ledger_id, count in foreign.items():
        findings.add(
            "receipt",
            None,
            f"{counted(count, 'receipt')} of those given {'is' if count == 1 else 'are'} of ledger "
            f"{ledger_id}, not of this one, {log.ledger_id}",
        )
    for source, receipt in receipts:
        if receipt.ledger_id not in foreign:
            verified.evidence.receipt(source, receipt, findings)
    for source, why in damaged:
        findings.add("receipt", None, f"the receipt in {source} cannot be read: {why}")
    for entry, why in tables:
        where = "the ledger" if entry is None else f"entry {entry}"
        findings.add("tables", entry, f"{where}: {why}")
    spent = accounts.spent if accounts else 0
    return LedgerReport(
        source=log.source,
        ledger_id=log.ledger_id,
        keys=verified.keys.own,
        key_source=_key_source(verified.keys.own, known),
        opening=opening,
        entries=len(verified.chain),
        times=_times(verified.chain),
        head=log.head,
        spent=spent,
        draws=accounts.draws if accounts else 0,
        training_used=len(accounts.training) if accounts else 0,
        epsilon_spent=epsilon_of(opening.plan, spent) if opening else None,
        clients=client_reports(accounts, verified.chain) if accounts else (),
        receipts=len(receipts),
        heads=len(heads),
        violations=tuple(findings.found),
    )


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
    _check_noise(opening, findings)
    return opening


def _check_noise(opening: Opening, findings: Findings) -> None:
    """What the samplers' error costs was set aside; a rehearsal promises nothing in any case."""
    plan = opening.plan
    if not plan.draws or opening.dataset_id == REHEARSAL or sources_within(plan.closeness):
        return
    findings.add(
        "plan",
        0,
        f"the plan sets aside less than any known noise source errs by, η = "
        f"{plan.closeness.eta:g} and τ = {plan.closeness.tau:g} a draw: no service can keep it",
    )


def _replay(chain: dict[int, Recorded], opening: Opening, findings: Findings) -> Accounts:
    accounts = Accounts(opening)
    for number, item in chain.items():
        # After a gap the totals cannot follow; the gap itself is reported.
        follows = number == 0 or number - 1 in chain
        for fault in accounts.apply(item.entry):
            if follows:
                findings.add("accounts", number, f"entry {number} does not add up: {fault}")
    return accounts


def _key_source(own: KeyHistory, known: Sequence[tuple[str, KeyHistory]]) -> str:
    """Where the log's own key is known from."""
    if not known:
        return "the log itself"
    source, keys = known[0]
    first = keys.keys[0].public_key
    return source if first in own else f"the log itself; not from {source}: {first.hex()[:16]}…"


def _times(chain: dict[int, Recorded]) -> tuple[str, str] | None:
    entries = [item.entry for item in chain.values()]
    return (entries[0].time, entries[-1].time) if entries else None
