"""What the ledger's tables say: about a request, an answer, a client, a teacher."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_

from privacy import canonical_json
from privacy.composition import DpSgdRun
from privacy.errors import LedgerCorrupt, RequestIdReused
from privacy.ledger import statements, store
from privacy.ledger.chain import Entry
from privacy.ledger.settlement import Settlement
from privacy.ledger.standing import Account
from privacy.ledger.training_charge import TrainingCharge
from privacy.receipts import Receipt

_PER_QUERY = 200


def lock_state(connection: Connection) -> Row[Any]:
    """The ledger's state, held against every other writer until the transaction ends."""
    return connection.execute(statements.LOCK_STATE).one()


def read_state(connection: Connection) -> Row[Any]:
    """The ledger's state as it is now."""
    return connection.execute(statements.STATE).one()


def read_account(connection: Connection, client: str, default_cap: int | None) -> Account:
    """The client's line; one that never spent has spent nothing."""
    return read_accounts(connection, [client], default_cap)[client]


def read_accounts(
    connection: Connection, names: Iterable[str], default_cap: int | None
) -> dict[str, Account]:
    """The line of each of these clients."""
    wanted = sorted(set(names))
    line = store.clients.c
    rows = statements.select_rows(
        connection, (line.client, line.spent, line.cap), (line.client,), [(n,) for n in wanted]
    )
    accounts = {name: Account(name, default_cap=default_cap) for name in wanted}
    for name, spent, cap in rows:
        accounts[name] = Account(name, spent, cap, default_cap)
    return accounts


def last_groups(connection: Connection) -> list[tuple[int, int]]:
    """First and last entry of the group that each writing process committed last."""
    rows = connection.execute(select(store.writers.c.first, store.writers.c.last))
    return [(first, last) for first, last in rows]


def recorded_hash(connection: Connection, number: int) -> bytes | None:
    """The hash that the ledger has of one entry; None when it has no such entry."""
    return connection.scalar(select(store.entries.c.hash).where(store.entries.c.number == number))


def find_all(
    connection: Connection, requests: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Row[Any]]:
    """The stored requests among these (client, request id)."""
    columns = store.requests.c
    pair = columns.client, columns.request_id
    # Most are new: whether one is there costs far less than to fetch it.
    there = statements.select_rows(connection, pair, pair, list(requests))
    found: dict[tuple[str, str], Row[Any]] = {}
    for start in range(0, len(there), _PER_QUERY):
        some = there[start : start + _PER_QUERY]
        rows = connection.execute(select(store.requests).where(tuple_(*pair).in_(some)))
        found.update({(row.client, row.request_id): row for row in rows})
    return found


def answers_among(connection: Connection, keys: Iterable[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """Key → (entry that stored it, payload), for those of many keys that are stored."""
    key = store.answers.c.key
    there = statements.select_rows(connection, (key,), (key,), [(k,) for k in set(keys)])
    return store.read_answers(connection, [bytes(found) for (found,) in there])


def settlement(connection: Connection, row: Row[Any], content_digest: bytes) -> Settlement:
    """What the stored request in `row` was settled as. Raises RequestIdReused, LedgerCorrupt."""
    require_same(row.client, row.request_id, row.content_digest, content_digest)
    asked = [row.keys[start : start + 32] for start in range(0, len(row.keys), 32)]
    stored = store.read_answers(connection, list(set(asked)))
    if any(key not in stored for key in asked):
        raise LedgerCorrupt(
            f"an answer of entry {row.entry} is not stored any more; it cannot be drawn again"
        )
    receipt = Receipt.from_json_bytes(row.receipt)
    payloads = [stored[key][1] for key in asked]
    return Settlement(payloads, receipt, receipt.charge, row.new, repeated=True)


def settlement_or_refusal(
    connection: Connection, row: Row[Any], content_digest: bytes
) -> Settlement | RequestIdReused:
    """As `settlement`, its refusal in its place."""
    try:
        return settlement(connection, row, content_digest)
    except RequestIdReused as refusal:
        return refusal


def require_same(client: str, request_id: str, before: bytes, now: bytes) -> None:
    """Raises RequestIdReused when a request id comes again with other content."""
    if before != now:
        raise RequestIdReused(
            f"request id {request_id} of client {client!r} was used for other content; send a "
            "fresh id with a fresh request"
        )


def training_of(connection: Connection, teacher_version: str) -> TrainingCharge | None:
    """What was charged for the training of this teacher; None when nothing was.

    Raises LedgerCorrupt when the stored charge is not that of the chain's entry.
    """
    row = connection.execute(
        select(store.entries.c.number, store.entries.c.body, store.requests.c.content_digest)
        .join(store.requests, store.requests.c.entry == store.entries.c.number)
        .where(
            store.requests.c.client == "",
            store.requests.c.request_id == training_request(teacher_version),
        )
    ).one_or_none()
    if row is None:
        return None
    entry = Entry.from_json(canonical_json.decode(row.body))
    with suppress(ValueError, KeyError, TypeError):
        charge = TrainingCharge.from_content(store.as_bytes(row.content_digest))
        if charge.run == DpSgdRun.from_json(entry.details["run"]):
            return charge
    raise LedgerCorrupt(f"the charge of entry {row.number} is not stored as it was made")


def training_request(teacher_version: str) -> str:
    """The request id of a teacher's training: a version is one training."""
    return f"training:{teacher_version}"


def used_places(connection: Connection) -> set[int]:
    """Places in the plan of the reserved DP-SGD runs that were used."""
    return set(connection.scalars(select(store.training.c.place)))
