"""The ledger, closed, against the journals of all clients: nothing lost, nothing charged twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from benchmarks.soaking.journal import Asked
from privacy.audit.ledger_check import verify
from privacy.audit.log import folder_faults, parse_log
from privacy.ledger import Ledger, store
from privacy.ledger.chain import Entry
from privacy.ledger.database import Database
from privacy.receipts import Receipt

_REQUESTS = 200
_SHOWN = 5


@dataclass(frozen=True)
class Settled:
    """What the ledger's tables hold of a request. digest: as a client makes it of its answers."""

    digest: str
    new: int
    receipt: str
    charge: int


@dataclass
class Books:
    """Totals, and what contradicts the promise, in words: of each kind the first few.

    unheard: requests that were settled and whose client never saw the answer, by what it had done.
    """

    entries: int = 0
    charged: int = 0
    spent: int = 0
    receipts: int = 0
    unheard: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def fault(self, kind: str, what: str = "") -> None:
        """Notes one; `kind` says what is wrong, `what` with which."""
        self.faults[kind] += 1
        if self.faults[kind] <= _SHOWN:
            self.broken.append(f"{kind}{': ' if what else ''}{what}")


def balance(
    books: Books,
    client: str,
    asked: Mapping[str, Asked],
    settled: Mapping[str, Settled],
    taps: int,
    price: int,
) -> None:
    """Holds one client's requests against its entries. price: units of a sample's taps together."""
    for request_id in settled.keys() - asked.keys():
        books.fault("an entry that nobody asked for", f"{client} {request_id}")
    for request in asked.values():
        held, name = settled.get(request.request_id), f"{client} {request.request_id}"
        charges = [got.charged for got in request.got if got.charged]
        if held is None:
            if request.got:
                books.fault("an answer without an entry", name)
            continue
        if (held.charge, held.new) != (price * request.count, taps * request.count):
            books.fault("a charge that is not the samples' price", name)
        if any(got.digest != held.digest for got in request.got):
            books.fault("an answer that is not the stored one", name)
        if any(got.receipt != held.receipt for got in request.got):
            books.fault("a receipt that is not the stored one", name)
        if len(charges) > 1 or any(charge != request.count for charge in charges):
            books.fault("a request that was told to be charged twice or in part", name)
        if request.got and not charges and not request.in_doubt:
            books.fault("a charge that no answer told of", name)
        if request.got:
            continue
        if not request.in_doubt:
            books.fault("a charge whose client was refused each time", name)
        elif request.died:
            books.unheard["died"] += 1
        elif request.cuts:
            books.unheard["cancelled or broke its connection"] += 1
        elif "DEADLINE_EXCEEDED" in request.refused:
            books.unheard["deadline passed"] += 1
        else:
            books.unheard["connection lost"] += 1


class Closed:
    """A ledger that nobody writes any more, with its log verified against itself."""

    def __init__(self, folder: Path, witness: Path, books: Books) -> None:
        self._books = books
        with Ledger.open(folder, witness=witness, read_only=True) as ledger:
            if ledger.rolled_back is not None:
                books.fault("the ledger opens exhausted", ledger.rolled_back)
            books.spent = ledger.budget().spent
            log = parse_log(str(folder), list(ledger.log_lines()))
        self._verified = verify(log)
        for number, why in folder_faults(folder, log):
            books.fault("tables against the log", f"entry {number}: {why}")
        self._entries: dict[tuple[str, str], Entry] = {}
        for recorded in log.recorded:
            entry = recorded.entry
            if entry.kind != "answers":
                continue
            books.entries += 1
            books.charged += entry.charge
            if (entry.client, entry.request_id) in self._entries:
                books.fault("two entries of one request", f"{entry.client} {entry.request_id}")
            self._entries[entry.client, entry.request_id] = entry
        self._engine = Database.of(folder).readable()

    def settled(self, client: str) -> dict[str, Settled]:
        """Request id → what the tables hold, of one client; faults where the log differs."""
        with self._engine.connect() as connection:
            found = dict(self._settled(connection, client))
        logged = {name for who, name in self._entries if who == client}
        for request_id in logged ^ found.keys():
            self._books.fault("a request in the tables or in the log alone", request_id)
        return found

    def check_receipt(self, client: str, request: Asked) -> None:
        """Verifies a receipt that a client holds against the chain and its signature."""
        for text in {got.receipt for got in request.got}:
            self._books.receipts += 1
            receipt = Receipt.from_json_bytes(text.encode())
            if (receipt.client, receipt.request_id) != (client, request.request_id):
                self._books.fault("a receipt of another request", f"{client} {request.request_id}")
            self._verified.evidence.receipt(Path(client), receipt, self._verified.findings)

    def close(self) -> None:
        """Adds up, and reports what the audit found."""
        self._engine.dispose()
        for violation in self._verified.findings.found:
            self._books.fault("the audit", violation.message)
        if self._books.charged != self._books.spent:
            self._books.fault(
                "sums differ",
                f"entries {self._books.charged}, spent in the ledger {self._books.spent}",
            )

    def _settled(self, connection: Connection, client: str) -> Iterator[tuple[str, Settled]]:
        columns = store.requests.c
        rows = connection.execute(select(store.requests).where(columns.client == client)).all()
        for start in range(0, len(rows), _REQUESTS):
            some = rows[start : start + _REQUESTS]
            keys = [
                [row.keys[place : place + 32] for place in range(0, len(row.keys), 32)]
                for row in some
            ]
            stored = store.read_answers(connection, [key for group in keys for key in group])
            for row, group in zip(some, keys, strict=True):
                payloads = [stored[key][1] if key in stored else b"" for key in group]
                entry = self._entries.get((client, row.request_id))
                if entry is None or entry.number != row.entry:
                    self._books.fault("a request that names another entry", row.request_id)
                    continue
                yield (
                    row.request_id,
                    Settled(
                        hashlib.sha256(b"".join(payloads)).hexdigest(),
                        row.new,
                        row.receipt.decode(),
                        entry.charge,
                    ),
                )
