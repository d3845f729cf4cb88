"""What receipts say of one ledger's past: its spending never falls, one number has one entry."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import NamedTuple

from privacy.receipts import Receipt


class Contradiction(ValueError):
    """Two receipts that no ledger which is only ever added to can have given."""


class _Entry(NamedTuple):
    """What one receipt says."""

    number: int
    digest: bytes
    spent: int

    @classmethod
    def of(cls, receipt: Receipt) -> _Entry:
        return cls(receipt.entry, receipt.entry_hash, receipt.spent)


def _number(entry: _Entry) -> int:
    return entry.number


class History:
    """The entries of one ledger that receipts are known of."""

    def __init__(self, known: Iterable[Receipt] = ()):
        """known: accepted before, in any order; they are not compared with one another."""
        self._entries = sorted(map(_Entry.of, known), key=_number)

    def add(self, receipt: Receipt) -> None:
        """Raises Contradiction where it cannot be true beside those before.

        These are in order already: its neighbours speak for all.
        """
        new = _Entry.of(receipt)
        first = bisect.bisect_left(self._entries, new.number, key=_number)
        last = bisect.bisect_right(self._entries, new.number, key=_number)
        for earlier in self._entries[max(0, first - 1) : last + 1]:
            if earlier.number == new.number and earlier.digest != new.digest:
                raise Contradiction(
                    f"entry {new.number} of the ledger has two contents. The ledger was forked or "
                    "rolled back; tell its auditor"
                )
            before, after = sorted((earlier, new), key=_number)
            if before.spent > after.spent:
                raise Contradiction(
                    f"{before.spent:,} was spent at entry {before.number}, {after.spent:,} at "
                    f"entry {after.number}. The ledger was rolled back; tell its auditor"
                )
        self._entries.insert(last, new)
