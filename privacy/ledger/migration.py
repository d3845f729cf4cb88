"""Brings the tables of an older schema version to this one: steps, each whole or not at all.

Entries, receipts and heads are never rewritten: what was hashed and signed stays as it was. Only
the tables around them change.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DBAPIError

from privacy.errors import LedgerError, LedgerMismatch
from privacy.ledger import opening, sqlite, store
from privacy.ledger.database import Database
from privacy.ledger.durable import sync_folder
from privacy.ledger.keys import LedgerKeys


@dataclass(frozen=True)
class Migrated:
    """What `migrate` did. kept: the copy of the tables as they were; None when nothing changed."""

    version_before: int
    version: int
    kept: Path | None


def migrate(folder: Path) -> Migrated:
    """Brings the ledger in `folder` to this program's schema version; a current one is left alone.

    A copy of the tables as they were is on disk first, beside them. Every step is one transaction
    with the version that it leads to, and the last one replays the whole chain before it commits:
    a ledger that does not hold keeps its old version.

    Raises LedgerMissing, LedgerInUse when another process writes it, LedgerMismatch for a newer
    version or foreign keys, LedgerCorrupt, LedgerError or OSError when there is no room.
    """
    database = Database.of(folder)
    database.require()
    lock = database.lock()
    engine = database.writable().execution_options(**{store.WRITING: True})
    try:
        return _migrate(folder, database, engine)
    except DBAPIError as error:
        raise LedgerError(f"{database} could not be migrated ({error.orig})") from error
    finally:
        engine.dispose()
        if lock is not None:
            lock.release()


def _migrate(folder: Path, database: Database, engine: Engine) -> Migrated:
    with engine.connect() as connection:
        before = opening.read_version(connection, database)
    if before == store.SCHEMA_VERSION:
        return Migrated(before, before, None)
    if before not in _STEPS or database.server is not None:
        raise LedgerMismatch(opening.unreadable(database, before))
    kept = _keep(folder, before)
    for version in range(before, store.SCHEMA_VERSION):
        with engine.begin() as connection:
            _STEPS[version](connection)
            connection.execute(update(store.state).values(schema_version=version + 1))
            if version + 1 == store.SCHEMA_VERSION:
                contents = opening.read(connection, database)
                opening.require_keys(contents, LedgerKeys.read(folder), folder)
    return Migrated(before, store.SCHEMA_VERSION, kept)


def _keep(folder: Path, version: int) -> Path:
    """Copies the SQLite tables beside themselves; returns once the copy is on disk."""
    kept = folder / f"{sqlite.DATABASE}.version-{version}"
    temporary = folder / f".{kept.name}.tmp"
    temporary.unlink(missing_ok=True)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with (
            closing(sqlite3.connect(folder / sqlite.DATABASE)) as source,
            closing(sqlite3.connect(temporary)) as target,
        ):
            source.backup(target)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, kept)
    except sqlite3.Error as error:
        raise LedgerError(f"the tables could not be copied to {kept} ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)
    return kept


def _writers(connection: Connection) -> None:
    """1 → 2: which entries each writer committed last; a crash of version 1 left one at most."""
    connection.exec_driver_sql(
        "CREATE TABLE writers (writer VARCHAR NOT NULL, first BIGINT NOT NULL,"
        " last BIGINT NOT NULL, PRIMARY KEY (writer))"
    )
    last = connection.scalars(select(store.state.c.last_entry)).one()
    connection.exec_driver_sql(
        "INSERT INTO writers (writer, first, last) VALUES ('sqlite', ?, ?)", (last, last)
    )


_STEPS: Final[dict[int, Callable[[Connection], None]]] = {1: _writers}
"""Version → the step from it to the next. A step is never edited once it was released."""
