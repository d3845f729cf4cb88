"""The witness: the last signed head, kept on other storage than the ledger.

A database restored from a backup or a snapshot has forgotten charges and answers: serving on from
it would refund budget and draw noise twice for the same samples. The ledger alone cannot know; a
head kept elsewhere can. The witness is advanced after every commit and before anything is sent, so
that a crash leaves the ledger ahead of it by what its writers committed last and nothing else.
Every other difference counts as a rollback: behind the witness, on another branch, or so far ahead
that the witness itself is old and could not tell what the ledger lacks.

The file has two slots of one disk block each, a head as canonical JSON in each, padded with spaces.
They are written in turns, so that a crash in the middle leaves the other one whole; the newest
head whose signature holds is the witness. A file of one JSON object is a first slot alone.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from privacy.errors import LedgerExists, LedgerMismatch, SignatureInvalid
from privacy.ledger.durable import create_durably
from privacy.ledger.rollback import Chain, Reason, compare
from privacy.receipts import Receipt, SignedHead

_SLOT: Final = 4096
_PADDING: Final = b" \n\0"

Verify = Callable[[SignedHead | Receipt], None]
"""Returns for what the ledger's own key signed; raises SignatureInvalid."""


class Witness:
    """The witness file at `path`. Not for two threads at once; any number of processes."""

    def __init__(self, path: Path, verify: Verify) -> None:
        self.path = path
        self.verify = verify
        self._known: dict[bytes, SignedHead] = {}

    @staticmethod
    def create(path: Path, head: SignedHead) -> None:
        """Makes the file, with its first head. Raises LedgerExists when it is there already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            create_durably(path, _padded(head) + b" " * (_SLOT - 1) + b"\n")
        except FileExistsError:
            raise LedgerExists(
                f"{path} is already the witness of a ledger; choose another file, or remove "
                "it if no ledger was ever served with it"
            ) from None

    def advance(self, head: SignedHead) -> None:
        """On return the file holds `head`, or a later one of another replica, on disk.

        Never goes back. Raises LedgerMismatch when it holds another head of the same entry, OSError
        when it cannot be written or is gone.
        """
        with self._locked() as file:
            slots = _slots(os.pread(file, 2 * _SLOT, 0))
            heads = [self._signed(slot) for slot in slots]
            newest = max(filter(None, heads), key=lambda held: held.entry, default=None)
            if newest is not None and newest.entry >= head.entry:
                if newest.entry == head.entry and newest.entry_hash != head.entry_hash:
                    raise LedgerMismatch(
                        f"the witness {self.path} saw another entry {head.entry}: the ledger is "
                        "served from two copies"
                    )
                return
            slot = 1 if newest is not None and newest is heads[0] else 0
            content = _padded(head)
            os.pwrite(file, content, slot * _SLOT)
            os.fdatasync(file)
            self._known = {slots[1 - slot]: newest} if newest is not None else {}
            self._known[content.strip(_PADDING)] = head

    def content(self) -> bytes | None:
        """The file as it is now, to see whether it changed; None when it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError:
            return None

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
        self.verify(trusted)
        reason = compare(trusted, chain, "the trusted head")
        return reason.text if reason else None

    def _compare_file(self, chain: Chain) -> Reason | None:
        try:
            heads = read_heads(self.path.read_bytes())
        except FileNotFoundError:
            return Reason(f"its witness {self.path} is missing", final=False)
        except (ValueError, OSError) as error:
            return Reason(f"its witness {self.path} cannot be read ({error})", final=False)
        ours = [head for head in heads if head.ledger_id == chain.ledger_id]
        if not ours:
            raise LedgerMismatch(
                f"{self.path} is the witness of ledger {heads[0].ledger_id}, not of "
                f"{chain.ledger_id}; name the witness that this ledger was opened with"
            )
        for head in ours:
            try:
                self.verify(head)
            except SignatureInvalid:
                continue
            return compare(head, chain, f"its witness {self.path}")
        return Reason(f"its witness {self.path} was changed", final=False)

    def _signed(self, slot: bytes) -> SignedHead | None:
        """The head in a slot; None when the slot is empty, or was cut off by a crash."""
        if slot in self._known:
            return self._known[slot]
        try:
            head = SignedHead.from_json_bytes(slot)
            self.verify(head)
        except (ValueError, SignatureInvalid):
            return None
        return head

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, with every other process kept from writing it."""
        file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def read_heads(content: bytes) -> list[SignedHead]:
    """The heads in a witness file, or a copy of it, newest first; checks no signature.

    Raises ValueError when there is none.
    """
    heads: list[SignedHead] = []
    fault = ValueError("it is empty")
    for slot in filter(None, _slots(content)):
        try:
            heads.append(SignedHead.from_json_bytes(slot))
        except ValueError as error:
            fault = error
    if not heads:
        raise fault
    return sorted(heads, key=lambda head: head.entry, reverse=True)


def _slots(content: bytes) -> tuple[bytes, bytes]:
    return content[:_SLOT].strip(_PADDING), content[_SLOT : 2 * _SLOT].strip(_PADDING)


def _padded(head: SignedHead) -> bytes:
    return head.to_json_bytes().ljust(_SLOT - 1) + b"\n"
