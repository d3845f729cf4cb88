"""The ledger's tables, and what is read from them: plain SQL, the same for every database.

The row of `state` is the lock: every writing transaction reads it `FOR UPDATE` first (SQLite takes
its write lock at BEGIN instead), and its CHECKs refuse a debit past a limit whatever the code does.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    bindparam,
    select,
)

SCHEMA_VERSION: Final = 2
WRITING: Final = "ktan_writing"
"""Execution option of a connection whose transactions write."""
_KEYS_PER_QUERY: Final = 500

metadata = MetaData()

state = Table(
    "state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("secret_check", LargeBinary, nullable=False),
    Column("budget", BigInteger, nullable=False),
    Column("draws_budget", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("draws", BigInteger, nullable=False),
    Column("last_entry", BigInteger, nullable=False),
    Column("last_hash", LargeBinary, nullable=False),
    Column("head", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    CheckConstraint("spent >= 0 AND spent <= budget", name="within_budget"),
    CheckConstraint("draws >= 0 AND draws <= draws_budget", name="within_draws"),
)
"""One row: the limits, the totals, and the signed head in canonical JSON."""

entries = Table(
    "entries",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""The chain: `body` is the canonical JSON that `hash` is of."""

requests = Table(
    "requests",
    metadata,
    Column("client", String, nullable=False),
    Column("request_id", String, nullable=False),
    Column("content_digest", LargeBinary, nullable=False),
    Column("entry", BigInteger, nullable=False, unique=True),
    Column("keys", LargeBinary, nullable=False),
    Column("new", BigInteger, nullable=False),
    Column("receipt", LargeBinary, nullable=False),
    PrimaryKeyConstraint("client", "request_id"),
)
"""Every accepted request: `keys` are its answers' keys, 32 bytes each, in the order asked."""

answers = Table(
    "answers",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("entry", BigInteger, nullable=False, index=True),
    Column("place", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
"""Stored releases; `place` is the position within the entry that stored it."""

clients = Table(
    "clients",
    metadata,
    Column("client", String, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("cap", BigInteger, nullable=True),
    CheckConstraint("spent >= 0", name="spent_not_negative"),
)

training = Table(
    "training",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("entry", BigInteger, nullable=False, unique=True),
)
"""The plan's reserved DP-SGD runs that were used, by their place in the plan."""

writers = Table(
    "writers",
    metadata,
    Column("writer", String, primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
)
"""Per writing process, the entries of the last group that it committed: what a crash may leave
beyond the witness (witness.py). A SQLite ledger has one writer, "sqlite"."""


_ANSWERS: Final = select(answers.c.key, answers.c.entry, answers.c.payload).where(
    answers.c.key.in_(bindparam("wanted", expanding=True))
)


def read_entries(
    connection: Connection, first: int = 0, batch: int = 1000
) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, hash, body) in the order of their numbers, from `first` on.

    As bytes even where somebody has put a value of another type into the database.
    """
    while True:
        rows = connection.execute(
            select(entries.c.number, entries.c.hash, entries.c.body)
            .where(entries.c.number >= first)
            .order_by(entries.c.number)
            .limit(batch)
        ).all()
        yield from ((number, as_bytes(digest), as_bytes(body)) for number, digest, body in rows)
        if len(rows) < batch:
            return
        first = rows[-1][0] + 1


def as_bytes(value: Any) -> bytes:
    """A column's value as bytes; SQLite keeps whatever type was written."""
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()


def read_answers(connection: Connection, keys: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """Key → (entry that stored it, payload), for the keys that are stored."""
    found: dict[bytes, tuple[int, bytes]] = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        rows = connection.execute(_ANSWERS, {"wanted": part})
        found.update({key: (entry, payload) for key, entry, payload in rows})
    return found


def read_answers_of(connection: Connection, entry: int) -> list[tuple[bytes, bytes]]:
    """(key, payload) of the answers that one entry stored, in storing order."""
    rows = connection.execute(
        select(answers.c.key, answers.c.payload)
        .where(answers.c.entry == entry)
        .order_by(answers.c.place)
    )
    return [(key, payload) for key, payload in rows]
