"""The chain against what others hold: signed receipts of clients, signed heads of auditors."""

from collections.abc import Sequence
from pathlib import Path

from privacy.audit.log import Log, Recorded
from privacy.audit.violations import Findings, ViolationKind
from privacy.budget import BudgetPlan, spent_epsilon
from privacy.errors import PrivacyError, SignatureInvalid
from privacy.ledger.accounts import Opening
from privacy.receipts import Receipt, SignedHead, verify


def check_kept_head(
    source: Path,
    head: SignedHead,
    log: Log,
    chain: dict[int, Recorded],
    key: bytes,
    findings: Findings,
) -> None:
    """Reports where the log contradicts a head that somebody kept."""
    name = f"the head kept in {source}"
    if is_signed(head, log, key, name, findings):
        _require_reached(head, chain, name, findings)
        agrees(head, chain, name, findings)


def check_receipts(
    receipts: Sequence[tuple[Path, Receipt]],
    log: Log,
    chain: dict[int, Recorded],
    key: bytes,
    opening: Opening | None,
    findings: Findings,
) -> None:
    """Reports where the log contradicts a client's receipts, and they each other."""
    seen: dict[int, tuple[str, bytes]] = {}
    for source, receipt in receipts:
        name = f"the receipt of client {receipt.client!r} in {source}"
        if not is_signed(receipt, log, key, name, findings):
            continue
        other, digest = seen.setdefault(receipt.entry, (name, receipt.entry_hash))
        if digest != receipt.entry_hash:
            findings.add(
                "forked",
                receipt.entry,
                f"{name} and {other} are both signed and name two different entries "
                f"{receipt.entry}: the ledger was served from two copies",
            )
        _require_reached(receipt, chain, name, findings)
        if agrees(receipt, chain, name, findings):
            _compare_fields(receipt, chain[receipt.entry], name, opening, findings)


def is_signed(
    signed: Receipt | SignedHead, log: Log, key: bytes, name: str, findings: Findings
) -> bool:
    """True when it is of this ledger and signed with `key`; otherwise reports it."""
    kind: ViolationKind = "receipt" if isinstance(signed, Receipt) else "unsigned"
    if signed.ledger_id != log.ledger_id:
        findings.add(
            kind,
            signed.entry,
            f"{name} is of ledger {signed.ledger_id}, this is the log of {log.ledger_id}",
        )
        return False
    try:
        verify(signed, key)
    except (SignatureInvalid, ValueError):
        findings.add(
            kind,
            signed.entry,
            f"{name} carries no valid signature for entry {signed.entry}: it was changed, or "
            "signed with another key",
        )
        return False
    return True


def agrees(
    signed: Receipt | SignedHead, chain: dict[int, Recorded], name: str, findings: Findings
) -> bool:
    """True when the log has that very entry; otherwise says that the histories differ."""
    item = chain.get(signed.entry)
    if item is None:
        return False
    if item.hash == signed.entry_hash:
        if item.entry.spent_after != signed.spent:
            findings.add(
                "accounts",
                signed.entry,
                f"{name} says that {signed.spent:,} units were spent after entry {signed.entry}, "
                f"the entry says {item.entry.spent_after:,}",
            )
        return True
    if signed.entry_hash != item.recorded_hash:
        findings.add(
            "forked",
            signed.entry,
            f"{name} is signed and names another entry {signed.entry} than the log has: the log "
            "was rewritten, or forked at or before this entry",
        )
    return False


def _require_reached(
    signed: Receipt | SignedHead, chain: dict[int, Recorded], name: str, findings: Findings
) -> None:
    last = max(chain, default=-1)
    if signed.entry > last:
        findings.add(
            "truncated",
            signed.entry,
            f"the log ends at entry {last}, {name} names entry {signed.entry}: the end was cut "
            "off, or the ledger was restored from an older copy",
        )


def _compare_fields(
    receipt: Receipt, item: Recorded, name: str, opening: Opening | None, findings: Findings
) -> None:
    entry = item.entry
    for what, given, held in (
        ("client", receipt.client, entry.client),
        ("request id", receipt.request_id, entry.request_id),
        ("charge", receipt.charge, entry.charge),
        ("noise draws", receipt.draws, entry.draws),
    ):
        if given != held:
            findings.add(
                "receipt",
                receipt.entry,
                f"{name} says {what} {given!r}, entry {receipt.entry} says {held!r}",
            )
    if opening is None:
        return
    plan = opening.plan
    if receipt.promise != plan.promise or receipt.budget != plan.answer_units:
        findings.add(
            "receipt", receipt.entry, f"{name} states another promise or budget than the ledger's"
        )
    cost = epsilon_of(plan, receipt.spent)
    if cost is not None and receipt.epsilon_spent < cost * (1.0 - 1e-6):
        findings.add(
            "receipt", receipt.entry, f"{name} states less ε than its {receipt.spent:,} units cost"
        )


def epsilon_of(plan: BudgetPlan, units: int) -> float | None:
    """ε of `units` under the plan; None where the plan is such nonsense that it has none."""
    try:
        return spent_epsilon(plan, units)
    except (PrivacyError, ValueError, ArithmeticError):
        return None
