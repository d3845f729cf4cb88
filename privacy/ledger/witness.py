"""The witness: the last signed head, kept on other storage than the ledger.

A database restored from a backup or a snapshot has forgotten charges and answers: serving on from
it would refund budget and draw noise twice for the same samples. The ledger alone cannot know; a
head kept elsewhere can. The witness is rewritten after every commit and before anything is sent,
so that a crash leaves the ledger at most one entry ahead of it. Everything else counts as a
rollback: behind the witness, on another branch, or so far ahead that the witness itself is old
and could not tell what the ledger lacks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from privacy.errors import LedgerExists, LedgerMismatch, SignatureInvalid
from privacy.ledger.durable import create_durably, replace_durably
from privacy.receipts import Receipt, SignedHead, verify


@dataclass(frozen=True)
class Chain:
    """What must be known of a ledger to compare a head with it.

    hash_of: the recorded hash of entry n, None when the ledger has no entry n.
    """

    ledger_id: str
    public_key: bytes
    last: int
    hash_of: Callable[[int], bytes | None]


class Witness:
    """The witness file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, head: SignedHead) -> None:
        """Writes the first head. Raises LedgerExists when the file is there already."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            create_durably(self.path, head.to_json_bytes())
        except FileExistsError:
            raise LedgerExists(
                f"{self.path} is already the witness of a ledger; choose another file, or remove "
                "it if no ledger was ever served with it"
            ) from None

    def write(self, head: SignedHead) -> None:
        """Replaces the head; on return it is on disk."""
        replace_durably(self.path, head.to_json_bytes())

    def rollback(self, chain: Chain, trusted: SignedHead | Receipt | None = None) -> str | None:
        """Why the chain cannot be believed to be the newest; None when it can.

        trusted: a head or receipt from a client or an auditor, which stands in for a witness that
        is missing, damaged or old. It never overrules a witness that knows more than the ledger.
        Raises LedgerMismatch when witness or trusted head belong to another ledger.
        """
        reason = self._compare_file(chain)
        if reason is None or reason.final or trusted is None:
            return reason.text if reason else None
        if trusted.ledger_id != chain.ledger_id:
            raise LedgerMismatch(
                f"the trusted head is of ledger {trusted.ledger_id}, not of {chain.ledger_id}"
            )
        verify(trusted, chain.public_key)
        reason = _compare(trusted, chain, "the trusted head")
        return reason.text if reason else None

    def _compare_file(self, chain: Chain) -> "_Reason | None":
        try:
            head = SignedHead.from_json_bytes(self.path.read_bytes())
        except FileNotFoundError:
            return _Reason(f"its witness {self.path} is missing", final=False)
        except (ValueError, OSError) as error:
            return _Reason(f"its witness {self.path} cannot be read ({error})", final=False)
        if head.ledger_id != chain.ledger_id:
            raise LedgerMismatch(
                f"{self.path} is the witness of ledger {head.ledger_id}, not of {chain.ledger_id}; "
                "name the witness that this ledger was opened with"
            )
        try:
            verify(head, chain.public_key)
        except SignatureInvalid:
            return _Reason(f"its witness {self.path} was changed", final=False)
        return _compare(head, chain, f"its witness {self.path}")


@dataclass(frozen=True)
class _Reason:
    text: str
    final: bool
    """True when entries are known to be missing: no other head can mend that."""


def _compare(known: SignedHead | Receipt, chain: Chain, name: str) -> _Reason | None:
    held = chain.hash_of(known.entry)
    if held is None:
        return _Reason(
            f"{name} saw entry {known.entry}, the ledger ends at entry {chain.last}: it was "
            "restored from an older copy",
            final=True,
        )
    if held != known.entry_hash:
        return _Reason(
            f"{name} saw another entry {known.entry} than the ledger has: one of the two is from "
            "a copy that was served separately",
            final=True,
        )
    if known.entry < chain.last - 1:
        return _Reason(
            f"{name} saw entry {known.entry} last, the ledger ends at entry {chain.last}: it is "
            "too old to show that nothing after that is missing",
            final=False,
        )
    return None
