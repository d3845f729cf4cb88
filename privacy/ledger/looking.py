"""A look at the ledger: several questions about one state of its tables, on one connection.

Nothing here spends. What is told of a settlement or an answer was witnessed before; for one that
cannot be known to be, its refusal stands in its place.
"""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import Connection

from privacy.errors import (
    BudgetExhausted,
    LedgerRolledBack,
    LedgerUnreachable,
    RequestIdReused,
)
from privacy.ledger import lookup
from privacy.ledger.settlement import Settlement
from privacy.ledger.standing import Totals
from privacy.ledger.writer import Writer

_Found = TypeVar("_Found")


class Look:
    """See `Ledger.look`. Each question is about many requests, each answered by itself."""

    def __init__(self, connection: Connection, writer: Writer) -> None:
        self._connection = connection
        self._writer = writer

    def find_all(
        self, asked: Sequence[tuple[str, str, bytes]]
    ) -> list[Settlement | RequestIdReused | LedgerRolledBack | LedgerUnreachable | None]:
        """Of each (client, request id, content digest) what `Ledger.find` returns, or its
        refusal."""
        names = {(client, name) for client, name, _ in asked}
        rows = lookup.find_all(self._connection, names)
        found = [
            None
            if (row := rows.get((client, name))) is None
            else lookup.settlement_or_refusal(self._connection, row, digest)
            for client, name, digest in asked
        ]
        return witnessed(self._writer, found)

    def stored_all(
        self, asked: Sequence[Sequence[bytes]]
    ) -> list[dict[bytes, bytes] | LedgerRolledBack | LedgerUnreachable]:
        """For the keys of each request what `Ledger.stored` returns, or its refusal."""
        found = lookup.answers_among(self._connection, {key for keys in asked for key in keys})
        if not found:
            return [{} for _ in asked]
        refusal = _refusal_of_unseen(self._writer, [entry for entry, _ in found.values()])
        known = self._writer.head.entry
        looked: list[dict[bytes, bytes] | LedgerRolledBack | LedgerUnreachable] = []
        for keys in asked:
            own = {key: found[key] for key in keys if key in found}
            if refusal is not None and any(entry > known for entry, _ in own.values()):
                looked.append(refusal)
            else:
                looked.append({key: payload for key, (_, payload) in own.items()})
        return looked

    def check_all(self, asked: Sequence[tuple[str, int, int]]) -> list[BudgetExhausted | None]:
        """For each (client, charge, draws) the refusal that `Ledger.check` raises, or None."""
        book = self._writer.book
        if book.rolled_back is not None:
            return [LedgerRolledBack(charge, book.rolled_back) for _, charge, _ in asked]
        totals = Totals.of(lookup.read_state(self._connection))
        names = {client for client, _, _ in asked}
        accounts = lookup.read_accounts(self._connection, names, book.opening.default_cap)
        return [totals.refusal(accounts[client], charge, draws) for client, charge, draws in asked]


def witnessed(
    writer: Writer, found: Sequence[_Found]
) -> list[_Found | LedgerRolledBack | LedgerUnreachable]:
    """The same once the witness has seen the settlements among them; a refusal in the place of
    one that it cannot be known to have seen."""
    entries = [item.receipt.entry for item in found if isinstance(item, Settlement)]
    refusal = _refusal_of_unseen(writer, entries)
    if refusal is None:
        return list(found)
    known = writer.head.entry
    return [
        refusal if isinstance(item, Settlement) and item.receipt.entry > known else item
        for item in found
    ]


def _refusal_of_unseen(
    writer: Writer, entries: Sequence[int]
) -> LedgerRolledBack | LedgerUnreachable | None:
    """None once the witness has seen these entries; or why those of them that are after our head
    are not sent."""
    try:
        if entries:
            writer.wait_until_witnessed(max(entries))
    except (LedgerRolledBack, LedgerUnreachable) as refusal:
        return refusal
    return None
