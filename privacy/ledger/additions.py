"""What a group adds to the ledger: entries and receipts in memory, then all rows at once."""

from collections.abc import Mapping, Sequence
from itertools import count, repeat
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, Row

from privacy.budget import spent_epsilon
from privacy.errors import LedgerCorrupt
from privacy.ledger import store
from privacy.ledger.book import Book
from privacy.ledger.chain import NOTHING_NEW, Entry, EntryKind, entry_hash
from privacy.ledger.clock import utc_now
from privacy.ledger.standing import Account, Totals
from privacy.ledger.statements import DEBIT, insert_rows
from privacy.receipts import Receipt, SignedHead, sign, sign_together


class Unsure(Exception):
    """The group took for new what may not be: decide it again with `sure`."""


class Additions:
    """Grows the chain from the locked `state` on.

    totals: after everything added so far. receipts: those of `add_request`, once written.
    """

    def __init__(self, connection: Connection, state: Row[Any]) -> None:
        self.totals = Totals.of(state)
        self.receipts: list[Receipt] = []
        self._connection = connection
        self._state = state
        self._time: Final = utc_now()
        self._number: int = state.last_entry
        self._hash: bytes = state.last_hash
        self._entries: list[tuple[int, bytes, bytes]] = []
        self._answers: list[tuple[bytes, int, int, bytes]] = []
        self._requests: list[tuple[Any, ...]] = []
        self._training: list[tuple[int, int]] = []
        self._asked: list[tuple[Entry, bytes]] = []

    @property
    def empty(self) -> bool:
        """True when nothing was added."""
        return not self._entries

    @property
    def next_number(self) -> int:
        """Number of the entry that is added next."""
        return self._number + 1

    def add(
        self,
        kind: EntryKind,
        *,
        client: str = "",
        request_id: str = "",
        teacher_version: str = "",
        releases: int = 0,
        charge: int = 0,
        draws: int = 0,
        answers_digest: bytes = NOTHING_NEW,
        details: Mapping[str, Any],
    ) -> Entry:
        """The next entry of the chain. Its charge must be covered."""
        self.totals = self.totals.plus(charge, draws)
        entry = Entry(
            self._number + 1,
            self._hash,
            kind,
            self._time,
            client,
            request_id,
            teacher_version,
            releases,
            charge,
            draws,
            self.totals.spent,
            self.totals.draws,
            answers_digest,
            details,
        )
        body = entry.canonical()
        self._number, self._hash = entry.number, entry_hash(body)
        self._entries.append((self._number, self._hash, body))
        return entry

    def add_answers(self, entry: Entry, new: Mapping[bytes, bytes]) -> None:
        """The answers that `entry` stores: key → payload, in storing order."""
        self._answers.extend(zip(new, repeat(entry.number), count(), new.values(), strict=False))

    def add_training(self, place: int, entry: Entry) -> None:
        """The plan's reserved run at `place` was used by `entry`."""
        self._training.append((place, entry.number))

    def add_request(
        self, entry: Entry, content_digest: bytes, keys: Sequence[bytes], new: int
    ) -> int:
        """The request of the last entry, so that it is never charged again; the place of its
        receipt among `receipts`."""
        self._asked.append((entry, self._hash))
        self._requests.append(
            (entry.client, entry.request_id, content_digest, entry.number, b"".join(keys), new)
        )
        return len(self._asked) - 1

    def write(self, book: Book, accounts: Sequence[Account], *, sure: bool) -> SignedHead:
        """Signs and writes everything, and the lines of these clients; the head after it.

        Nothing is committed yet. Raises Unsure when something that was taken for new is not, with
        rows already written; LedgerCorrupt when it cannot be so (`sure`).
        """
        spent, draws = self.totals.spent, self.totals.draws
        signing = book.keys.signing
        head = sign(SignedHead(book.opening.ledger_id, self._number, self._hash, spent), signing)
        self.receipts = self._signed_receipts(book)
        requests = [
            (*row, receipt.to_json_bytes())
            for row, receipt in zip(self._requests, self.receipts, strict=True)
        ]
        for table, rows in (
            (store.entries, self._entries),
            (store.requests, requests),
            # By key: a third less work in the index than in random order.
            (store.answers, sorted(self._answers, key=itemgetter(0))),
            (store.training, self._training),
        ):
            if insert_rows(self._connection, table, rows) != len(rows):
                if sure:
                    raise LedgerCorrupt("the ledger's tables changed under its writer")
                raise Unsure
        lines = [(account.client, account.spent, account.cap) for account in accounts]
        insert_rows(self._connection, store.clients, lines, replace=True)
        group = [(book.writer, self._state.last_entry + 1, self._number)]
        insert_rows(self._connection, store.writers, group, replace=True)
        # Guarded: correct even for a writer that did not hold the lock it believes to hold.
        debited = self._connection.execute(
            DEBIT,
            {
                "held_entry": self._state.last_entry,
                "held_hash": self._state.last_hash,
                "held_spent": self._state.spent,
                "held_draws": self._state.draws,
                "spent_after": spent,
                "draws_after": draws,
                "number": self._number,
                "hash": self._hash,
                "signed": head.to_json_bytes(),
            },
        )
        if debited.rowcount != 1:
            raise LedgerCorrupt("the ledger's state changed under its writer")
        return head

    def _signed_receipts(self, book: Book) -> list[Receipt]:
        if not self._asked:
            return []
        plan = book.opening.plan
        # After the whole group: when these receipts are sent, that much is spent.
        epsilon = spent_epsilon(plan, self.totals.spent)
        unsigned = [
            Receipt(
                book.opening.ledger_id,
                entry.number,
                digest,
                entry.client,
                entry.request_id,
                entry.charge,
                entry.draws,
                entry.spent_after,
                plan.answer_units,
                epsilon,
                book.promise,
            )
            for entry, digest in self._asked
        ]
        return sign_together(unsigned, book.keys.signing)
