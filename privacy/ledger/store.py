"""The ledger's tables, and the only place that knows which database holds them.

Everything but `writable_engine`, `readable_engine` and their connect events is plain SQL through
SQLAlchemy Core, so that a second database needs a second way to connect and nothing else. The row
of `state` is the lock: every writing transaction reads it `FOR UPDATE` first (SQLite takes its
write lock at BEGIN instead), and its CHECKs refuse a debit past a limit whatever the code does.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    NullPool,
    PrimaryKeyConstraint,
    String,
    Table,
    bindparam,
    create_engine,
    event,
    select,
)

SCHEMA_VERSION: Final = 2
DATABASE: Final = "ledger.sqlite"
WRITING: Final = "ktan_writing"
"""Execution option of a connection whose transactions write."""
_BUSY_MILLISECONDS: Final = 30_000
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


def writable_engine(database: Path) -> Engine:
    """For the ledger's one writing process: WAL, and every commit waits for the disk."""
    engine = create_engine(f"sqlite:///{database}", max_overflow=-1)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        # The driver must not begin or commit on its own: `begun` below does.
        connection.isolation_level = None
        for setting in (
            f"busy_timeout = {_BUSY_MILLISECONDS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {setting}")

    _begin_explicitly(engine)
    return engine


def readable_engine(database: Path) -> Engine:
    """For whoever must not change a byte, beside a running writer or without one."""

    def connect() -> sqlite3.Connection:
        uri = f"{database.resolve().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    _begin_explicitly(engine)
    return engine


def _begin_explicitly(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # The write lock first: a transaction that reads and then writes could not upgrade its lock
        # while another writer waits.
        writing = connection.get_execution_options().get(WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


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
