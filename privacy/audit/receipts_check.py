"""Do a client's receipts fit a log, or at least one another? Names the first that does not.

First means: of the smallest entry number. What came before it in the chain is then known to be as
it was when the client was answered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from privacy.audit.evidence_check import epsilon_of
from privacy.audit.key_check import is_signed
from privacy.audit.ledger_check import Verification
from privacy.audit.violations import Findings, Violation
from privacy.key_history import KeyHistory
from privacy.promise import Promise
from privacy.receipts import Receipt, SignedHead

Found = Sequence[tuple[Path, Receipt]]


@dataclass(frozen=True)
class ReceiptsReport:
    """Outcome for the receipts of one or several clients.

    receipts: how many were looked at, for `entries` different entries of the chain, from `first`
    to `last`. charge: what these entries charged, in units of μ²·2⁴⁰; epsilon: what that comes to
    at the promise's δ, None where no plan is at hand. epsilon_spent: of all clients, after `last`.
    head: of the log, None without one.
    misfit: the first receipt that does not fit, and why; None when all do.
    """

    ledger_id: str
    promise: Promise
    clients: tuple[str, ...]
    receipts: int
    entries: int
    first: int
    last: int
    charge: int
    epsilon: float | None
    epsilon_spent: float
    head: SignedHead | None
    misfit: Violation | None


def check_against_log(verified: Verification, receipts: Found) -> ReceiptsReport:
    """Holds receipts (at least one) against a log that was verified by itself."""
    ordered = _ordered(receipts)
    misfit = _first(ordered, verified.evidence.receipt)
    plan = None if verified.opening is None else verified.opening.plan
    charge = _charge(ordered)
    epsilon = None if plan is None else epsilon_of(plan, charge)
    return _report(ordered, misfit, epsilon, verified.log.head)


def check_among_themselves(keys: KeyHistory, receipts: Found) -> ReceiptsReport:
    """Holds receipts (at least one) against one another, where no log is at hand.

    One ledger, one promise, signatures by its keys, one content per entry, one entry per request,
    and a total that grows by at least what each one charged.
    """
    ordered = _ordered(receipts)
    misfit = _first(ordered, _Companions(keys).check)
    return _report(ordered, misfit, None, None)


class _Companions:
    """Receipts in the order of their entries, each compared with those before it."""

    def __init__(self, keys: KeyHistory) -> None:
        self._keys = keys
        self._before: tuple[str, Receipt] | None = None
        self._requests: dict[tuple[str, str], tuple[str, int]] = {}

    def check(self, source: Path, receipt: Receipt, findings: Findings) -> None:
        name = f"the receipt of client {receipt.client!r} in {source}"
        if not is_signed(receipt, self._keys.ledger_id, self._keys, name, findings):
            return
        request = receipt.client, receipt.request_id
        other, entry = self._requests.setdefault(request, (name, receipt.entry))
        if entry != receipt.entry:
            findings.add(
                "receipt",
                receipt.entry,
                f"{name} and {other} are of one request, {receipt.request_id}, and name two "
                f"entries, {receipt.entry} and {entry}: it was charged twice",
            )
        if self._before is not None:
            self._follows(*self._before, receipt, name, findings)
        self._before = name, receipt

    def _follows(
        self, other: str, before: Receipt, receipt: Receipt, name: str, findings: Findings
    ) -> None:
        entry = receipt.entry
        if (receipt.promise, receipt.budget) != (before.promise, before.budget):
            findings.add("receipt", entry, f"{name} states another promise or budget than {other}")
        if entry == before.entry:
            if receipt.entry_hash != before.entry_hash:
                findings.add(
                    "forked",
                    entry,
                    f"{name} and {other} are both signed and name two different entries {entry}: "
                    "the ledger was served from two copies",
                )
            return
        if receipt.spent < before.spent + receipt.charge:
            findings.add(
                "accounts",
                entry,
                f"{name} says that {receipt.spent:,} units were spent after entry {entry}, which "
                f"charged {receipt.charge:,}; {other} says {before.spent:,} after entry "
                f"{before.entry}: the ledger was rolled back between the two",
            )


def _ordered(receipts: Found) -> Found:
    return sorted(receipts, key=lambda item: (item[1].entry, str(item[0])))


def _first(receipts: Found, check: Callable[[Path, Receipt, Findings], None]) -> Violation | None:
    for source, receipt in receipts:
        findings = Findings()
        check(source, receipt, findings)
        if findings.found:
            return findings.found[0]
    return None


def _charge(receipts: Found) -> int:
    """Of the entries, each once: one request may have several copies of its receipt."""
    return sum({receipt.entry: receipt.charge for _, receipt in receipts}.values())


def _report(
    receipts: Found, misfit: Violation | None, epsilon: float | None, head: SignedHead | None
) -> ReceiptsReport:
    first, last = receipts[0][1], receipts[-1][1]
    return ReceiptsReport(
        ledger_id=last.ledger_id,
        promise=last.promise,
        clients=tuple(sorted({receipt.client for _, receipt in receipts})),
        receipts=len(receipts),
        entries=len({receipt.entry for _, receipt in receipts}),
        first=first.entry,
        last=last.entry,
        charge=_charge(receipts),
        epsilon=epsilon,
        epsilon_spent=last.epsilon_spent,
        head=head,
        misfit=misfit,
    )
