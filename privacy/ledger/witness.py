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

A slot that does not hold is a crash's doing only where the ledger is ahead of the other slot, and
never where it reads as a head beyond the ledger: that one was signed with a later key.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privacy.errors import LedgerExists, LedgerMismatch, SignatureInvalid
from privacy.ledger.durable import create_durably
from privacy.ledger.rollback import Chain, Reason, compare
from privacy.receipts import Receipt, SignedHead

_SLOT: Final = 4096
_PADDING: Final = b" \n\0"
_BLANK: Final = b" \n"
"""What an unwritten slot holds. Not zeros: those are what a disk gives for a lost block."""

Verify = Callable[[SignedHead | Receipt], None]
"""Returns for what the ledger's own key signed; raises SignatureInvalid."""

HashOf = Callable[[int], bytes | None]
"""The recorded hash of entry n of the ledger's chain; None when it has no entry n."""


@dataclass(frozen=True)
class _Found:
    """What a file holds. heads: per slot, those whose signature holds; newest: of them, at slot
    `place`; strangers: heads whose signature does not; damaged: a slot was written, and holds no
    head of ours."""

    heads: tuple[SignedHead | None, SignedHead | None]
    newest: SignedHead | None
    place: int
    strangers: tuple[SignedHead, ...]
    damaged: bool

    def beyond(self, ledger_id: str, last: int) -> SignedHead | None:
        """A stranger of this ledger past its last entry. No crash leaves one."""
        for head in self.strangers:
            if head.ledger_id == ledger_id and head.entry > last:
                return head
        return None


class Witness:
    """The witness file at `path`. Not for two threads at once; any number of processes.

    recorded: looks into the ledger as it is committed at the moment of the call.
    """

    def __init__(self, path: Path, verify: Verify, recorded: HashOf) -> None:
        self.path = path
        self.verify = verify
        self._recorded = recorded
        # Looked at or written last: nothing in it is verified again.
        self._seen: tuple[bytes, _Found] = b"", _Found((None, None), None, 0, (), True)
        self._ours: SignedHead | None = None

    @staticmethod
    def create(path: Path, head: SignedHead) -> None:
        """Makes the file, with its first head. Raises LedgerExists when it is there already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            create_durably(path, _first(head))
        except FileExistsError:
            raise LedgerExists(
                f"{path} is already the witness of a ledger; choose another file, or remove "
                "it if no ledger was ever served with it"
            ) from None

    def advance(self, head: SignedHead) -> None:
        """On return the file holds `head`, or a later one of another replica, on disk.

        Never goes back. Raises LedgerMismatch when it holds anything but an earlier or later head
        of the same chain, OSError when it cannot be written or is gone.
        """
        with self._locked() as file:
            found = self._look(os.pread(file, 2 * _SLOT, 0))
            newest = self._require_ours(found, head.ledger_id, head.entry, self._following(head))
            if newest.entry < head.entry:
                self._write(file, 1 - found.place, head)

    def renew(self, head: SignedHead) -> None:
        """Once the ledger is believed: as `advance`, and no slot is damaged any more.

        Nobody else writes the ledger meanwhile: `head` is its last.
        """
        with self._locked() as file:
            found = self._look(os.pread(file, 2 * _SLOT, 0))
            if found.newest is None:
                # A trusted head stands in for the whole file.
                os.pwrite(file, _first(head), 0)
                os.fdatasync(file)
                return
            newest = self._require_ours(found, head.ledger_id, head.entry, self._following(head))
            if newest.entry < head.entry or found.damaged:
                self._write(file, 1 - found.place, head)

    def newest(self, ledger_id: str, last: int, hash_of: HashOf) -> SignedHead:
        """The newest head in the file, which is an entry of the chain.

        last: number of the chain's last entry. Raises LedgerMismatch when it is not, or when a
        slot says that the ledger had more entries; OSError when the file cannot be read.
        """
        return self._require_ours(self._look(self.path.read_bytes()), ledger_id, last, hash_of)

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
            content = self.path.read_bytes()
            heads = read_heads(content)
        except FileNotFoundError:
            return Reason(f"its witness {self.path} is missing", final=False)
        except (ValueError, OSError) as error:
            return Reason(f"its witness {self.path} cannot be read ({error})", final=False)
        if all(head.ledger_id != chain.ledger_id for head in heads):
            raise LedgerMismatch(
                f"{self.path} is the witness of ledger {heads[0].ledger_id}, not of "
                f"{chain.ledger_id}; name the witness that this ledger was opened with"
            )
        found = self._look(content)
        if (beyond := found.beyond(chain.ledger_id, chain.last)) is not None:
            return Reason(
                f"its witness {self.path} has a head of entry {beyond.entry} that none of the "
                f"ledger's keys signed, the ledger ends at entry {chain.last}: it was restored "
                "from an older copy, of before its key was rotated, or the witness was changed",
                final=True,
            )
        if found.newest is None:
            return Reason(f"its witness {self.path} was changed", final=False)
        reason = compare(found.newest, chain, f"its witness {self.path}")
        if reason is None and found.damaged and found.newest.entry == chain.last:
            # A crash within `advance` comes after the commit: it leaves the ledger ahead.
            return Reason(
                f"its witness {self.path} is damaged: of its two heads only that of entry "
                f"{chain.last} can be read, and the other one may have been later",
                final=False,
            )
        return reason

    def _look(self, content: bytes) -> _Found:
        """What the file's content holds."""
        before, found = self._seen
        if content == before:
            return found
        strangers: list[SignedHead] = []

        def read(slot: bytes, kept: bytes, head: SignedHead | None) -> SignedHead | None:
            if head is not None and slot == kept:
                return head
            try:
                head = SignedHead.from_json_bytes(slot.strip(_PADDING))
                self.verify(head)
            except ValueError:
                return None
            except SignatureInvalid:
                strangers.extend([head] if head else [])
                return None
            return head

        slots, kept = _slots(content), _slots(before)
        first, second = map(read, slots, kept, found.heads)
        newest = max(filter(None, (first, second)), key=lambda head: head.entry, default=None)
        # The first slot is written when the file is made.
        damaged = first is None or (second is None and slots[1].strip(_BLANK) != b"")
        place = (first, second).index(newest)
        found = _Found((first, second), newest, place, tuple(strangers), damaged)
        self._seen = content, found
        return found

    def _require_ours(
        self, found: _Found, ledger_id: str, last: int, hash_of: HashOf
    ) -> SignedHead:
        beyond = found.beyond(ledger_id, last)
        if beyond is not None:
            raise LedgerMismatch(
                f"the witness {self.path} has a head of entry {beyond.entry} that none of the "
                "ledger's keys known here signed: its key was rotated elsewhere"
            )
        newest = found.newest
        if newest is None:
            raise LedgerMismatch(f"the witness {self.path} has no head that this ledger signed")
        held = hash_of(newest.entry)
        if held is None:
            raise LedgerMismatch(
                f"the witness {self.path} saw entry {newest.entry}, the ledger ends at entry "
                f"{last}: another copy of it is served, or its database was replaced by an older "
                "copy while it was served"
            )
        if held != newest.entry_hash:
            raise LedgerMismatch(
                f"the witness {self.path} saw another entry {newest.entry} than the ledger has: it "
                "is served from two copies"
            )
        self._ours = newest
        return newest

    def _following(self, head: SignedHead) -> HashOf:
        """The hashes of the chain that `head` ends, or ended before others went on."""

        def hash_of(number: int) -> bytes | None:
            for known in (head, self._ours):
                if known is not None and known.entry == number:
                    return known.entry_hash
            return self._recorded(number)

        return hash_of

    def _write(self, file: int, slot: int, head: SignedHead) -> None:
        """Replaces the slot beside the newest head's, which `_look` has just found."""
        padded = _padded(head)
        os.pwrite(file, padded, slot * _SLOT)
        os.fdatasync(file)
        other = _slots(self._seen[0])[1 - slot]
        if slot == 0:
            self._seen = padded + other, _Found((head, self._ours), head, 0, (), False)
        else:
            self._seen = other + padded, _Found((self._ours, head), head, 1, (), False)
        self._ours = head

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
    for slot in filter(None, (slot.strip(_PADDING) for slot in _slots(content))):
        try:
            heads.append(SignedHead.from_json_bytes(slot))
        except ValueError as error:
            fault = error
    if not heads:
        raise fault
    return sorted(heads, key=lambda head: head.entry, reverse=True)


def _slots(content: bytes) -> tuple[bytes, bytes]:
    return content[:_SLOT], content[_SLOT : 2 * _SLOT]


def _first(head: SignedHead) -> bytes:
    """A whole file, of one head."""
    return _padded(head) + b" " * (_SLOT - 1) + b"\n"


def _padded(head: SignedHead) -> bytes:
    return head.to_json_bytes().ljust(_SLOT - 1) + b"\n"
