"""A copy of a whole ledger, taken while other processes serve from it.

One snapshot of all tables goes into a new ledger folder, with the keys and what the application
keeps beside them. The copy is believed only as long as its witness believes it: once the ledger
has gone on, the copy opens exhausted (witness.py).
"""

import os
import secrets
import shutil
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Table, select
from sqlalchemy.exc import DBAPIError

from privacy.errors import LedgerError, LedgerExists
from privacy.ledger import opening, rotation, sqlite, store
from privacy.ledger.database import URL_FILE, Database
from privacy.ledger.durable import create_durably, sync_folder
from privacy.ledger.postgresql import PostgresSchema
from privacy.ledger.statements import insert_rows
from privacy.receipts import SignedHead

_ROWS: Final = 1000
"""Rows that are in memory at once; an answer may have tens of kilobytes."""


def back_up(folder: Path, target: Path, database_url: str | None = None) -> SignedHead:
    """Copies the ledger in `folder` to the new folder `target`; returns the head of the copy.

    database_url: of a PostgreSQL database for the copy's tables; None: a SQLite file in `target`.
    Either kind of ledger can be copied to either.

    The copy appears under its name only when it is on disk, whole, and its chain replayed. Raises
    LedgerExists when `target` is there already, LedgerMissing, LedgerMismatch, LedgerCorrupt,
    LedgerUnreachable (also when the copy's schema is there already), and LedgerError or OSError
    when it cannot be written.
    """
    source = Database.of(folder)
    source.require()
    if target.exists():
        raise LedgerExists(f"{target} exists already; a backup goes to a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
    building.mkdir(mode=0o700)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, building, ignore_errors=True)
        server = None
        if database_url is not None:
            server = PostgresSchema.new(database_url, _ledger_id(source))
            server.create()
            undo.callback(server.drop)
            create_durably(building / URL_FILE, server.to_text().encode() + b"\n", mode=0o600)
        copy = Database(building, server)
        # The keys after the tables would be newer than these; opening.require_keys tells.
        _copy_files(folder, building)
        _copy_tables(source, copy)
        head = _read_back(copy, building)
        sync_folder(building)
        os.rename(building, target)
        undo.pop_all()
    sync_folder(target.parent)
    return head


def _copy_files(folder: Path, building: Path) -> None:
    """Keys and the application's files, with their modes; not the tables, not where they are."""
    for path in sorted(folder.iterdir()):
        tables = path.name.startswith(sqlite.DATABASE) or path.name in (URL_FILE, sqlite.LOCK)
        if path.is_file() and not tables and not path.name.startswith("."):
            mode = stat.S_IMODE(path.stat().st_mode)
            create_durably(building / path.name, path.read_bytes(), mode)


def _copy_tables(source: Database, copy: Database) -> None:
    """All rows of one snapshot, in one transaction."""
    reading, writing = source.readable(), copy.writable()
    try:
        with (
            reading.connect() as snapshot,
            writing.execution_options(**{store.WRITING: True}).begin() as connection,
        ):
            opening.require_current(snapshot, source)
            store.metadata.create_all(connection)
            for table in store.metadata.sorted_tables:
                _copy_rows(snapshot, connection, table)
    except DBAPIError as error:
        raise LedgerError(f"{source} could not be copied to {copy} ({error.orig})") from error
    finally:
        reading.dispose()
        writing.dispose()


def _copy_rows(snapshot: Connection, connection: Connection, table: Table) -> None:
    rows = snapshot.execution_options(yield_per=_ROWS).execute(select(table))
    for part in rows.partitions():
        insert_rows(connection, table, part)


def _read_back(copy: Database, building: Path) -> SignedHead:
    """Replays the copy's chain as an opening would. Raises LedgerCorrupt, LedgerMismatch."""
    # Not `readable`: SQLite's last connection removes its side files only if it may write.
    engine = copy.writable()
    try:
        with engine.connect() as connection:
            contents = opening.read(connection, copy)
        keys = rotation.read_keys(building, contents.accounts.keys.current)
        opening.require_keys(contents, keys, building)
    finally:
        engine.dispose()
    return contents.head


def _ledger_id(source: Database) -> str:
    engine = source.readable()
    try:
        with engine.connect() as connection:
            opening.require_current(connection, source)
            head = connection.scalars(select(store.state.c.head)).one()
        return SignedHead.from_json_bytes(head).ledger_id
    finally:
        engine.dispose()
