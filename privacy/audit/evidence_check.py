"""The chain against what others hold: signed receipts of clients, signed heads of auditors."""

from dataclasses import dataclass, field
from pathlib import Path

from privacy.audit.key_check import OLDER, is_signed
from privacy.audit.log import Recorded
from privacy.audit.violations import Findings
from privacy.budget import BudgetPlan, spent_epsilon
from privacy.errors import PrivacyError
from privacy.key_history import KeyHistory
from privacy.ledger.accounts import Opening
from privacy.receipts import Receipt, SignedHead


@dataclass
class EvidenceCheck:
    """Holds heads and receipts against one log, and receipts against each other.

    chain: the log's entries by number. keys: what signed for which of them. opening: None where
    entry 0 cannot be read; what it fixes is then not compared.
    """

    ledger_id: str
    chain: dict[int, Recorded]
    keys: KeyHistory
    opening: Opening | None
    _seen: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    _last: int = field(init=False)

    def __post_init__(self) -> None:
        self._last = max(self.chain, default=-1)

    def own_head(self, head: SignedHead | None, keys: KeyHistory, findings: Findings) -> None:
        """Reports a log that does not end where its own signed head says.

        keys: the log's own, which may be others than those that somebody trusts.
        """
        last = self._last
        if head is None:
            findings.add("truncated", None, "the log ends without a signed head: it was cut off")
            return
        name, beyond = "the log's signed head", head.entry > last
        if not is_signed(head, self.ledger_id, keys, name, findings, beyond=beyond):
            return
        if head.entry > last:
            findings.add(
                "truncated",
                head.entry,
                f"the log ends at entry {last}, its own signed head names entry {head.entry}: "
                "the end was cut off",
            )
        elif head.entry < last:
            findings.add(
                "unsigned",
                head.entry + 1,
                f"the signed head ends at entry {head.entry}, the log goes on to entry {last}: "
                "no signature covers the rest",
            )
        self._agrees(head, "the log's own signed head", findings)

    def kept_head(self, source: Path, head: SignedHead, findings: Findings) -> None:
        """Reports where the log contradicts a head that somebody kept."""
        name = f"the head kept in {source}"
        if self._is_signed(head, name, findings):
            self._require_reached(head, name, findings)
            self._agrees(head, name, findings)

    def receipt(self, source: Path, receipt: Receipt, findings: Findings) -> None:
        """Reports where the log, or a receipt that came before, contradicts this one."""
        name = f"the receipt of client {receipt.client!r} in {source}"
        if not self._is_signed(receipt, name, findings):
            return
        other, digest = self._seen.setdefault(receipt.entry, (name, receipt.entry_hash))
        if digest != receipt.entry_hash:
            findings.add(
                "forked",
                receipt.entry,
                f"{name} and {other} are both signed and name two different entries "
                f"{receipt.entry}: the ledger was served from two copies",
            )
        self._require_reached(receipt, name, findings)
        if self._agrees(receipt, name, findings):
            self._compare_fields(receipt, name, findings)

    def _is_signed(self, signed: Receipt | SignedHead, name: str, findings: Findings) -> bool:
        beyond = signed.entry > self._last
        return is_signed(signed, self.ledger_id, self.keys, name, findings, beyond=beyond)

    def _agrees(self, signed: Receipt | SignedHead, name: str, findings: Findings) -> bool:
        """True when the log has that very entry; otherwise says that the histories differ."""
        item = self.chain.get(signed.entry)
        if item is None:
            return False
        if item.hash == signed.entry_hash:
            if item.entry.spent_after != signed.spent:
                findings.add(
                    "accounts",
                    signed.entry,
                    f"{name} says that {signed.spent:,} units were spent after entry "
                    f"{signed.entry}, the entry says {item.entry.spent_after:,}",
                )
            return True
        if signed.entry_hash != item.recorded_hash:
            findings.add(
                "forked",
                signed.entry,
                f"{name} is signed and names another entry {signed.entry} than the log has: the "
                "log was rewritten, or forked at or before this entry",
            )
        return False

    def _require_reached(self, signed: Receipt | SignedHead, name: str, findings: Findings) -> None:
        if signed.entry > self._last:
            findings.add(
                "truncated",
                signed.entry,
                f"the log ends at entry {self._last}, {name} names entry {signed.entry}: {OLDER}",
            )

    def _compare_fields(self, receipt: Receipt, name: str, findings: Findings) -> None:
        entry = self.chain[receipt.entry].entry
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
        if self.opening is None:
            return
        plan = self.opening.plan
        if receipt.promise != plan.promise or receipt.budget != plan.answer_units:
            findings.add(
                "receipt",
                receipt.entry,
                f"{name} states another promise or budget than the ledger's",
            )
        cost = epsilon_of(plan, receipt.spent)
        if cost is not None and receipt.epsilon_spent < cost * (1.0 - 1e-6):
            findings.add(
                "receipt",
                receipt.entry,
                f"{name} states less ε than its {receipt.spent:,} units cost",
            )


def epsilon_of(plan: BudgetPlan, units: int) -> float | None:
    """ε of `units` under the plan; None where the plan is such nonsense that it has none."""
    try:
        return spent_epsilon(plan, units)
    except (PrivacyError, ValueError, ArithmeticError):
        return None
