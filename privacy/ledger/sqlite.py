"""A ledger's tables in one SQLite file: one process writes, any number read beside it."""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, create_engine, event

from privacy.errors import LedgerInUse
from privacy.ledger.store import WRITING

DATABASE: Final = "ledger.sqlite"
LOCK: Final = "ledger.lock"
_BUSY_MILLISECONDS: Final = 30_000
_CACHE_KIBIBYTES: Final = 64 * 1024
_CHECKPOINT_PAGES: Final = 16 * 1024


class WriterLock:
    """Makes this process the only one that writes; the system releases it when the process dies.

    Raises LedgerInUse when another one holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise LedgerInUse(
                f"the ledger in {folder} is open for writing already, by its service say; stop "
                "that process first: of a SQLite ledger exactly one writes"
            ) from None

    def release(self) -> None:
        """Lets another process write."""
        os.close(self._file)


def writable_engine(database: Path) -> Engine:
    """For the ledger's one writing process: WAL, and every commit waits for the disk."""
    # The parameters of a statement are answers and keys: they have no place in a message.
    engine = create_engine(f"sqlite:///{database}", max_overflow=-1, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        # The driver must not begin or commit on its own: `begun` below does.
        connection.isolation_level = None
        for setting in (
            f"busy_timeout = {_BUSY_MILLISECONDS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            # Keys of answers are random: a group touches pages all over their index. They stay in
            # memory, and go back into the database in larger portions than one group.
            f"cache_size = -{_CACHE_KIBIBYTES}",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
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

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    _begin_explicitly(engine)
    return engine


def _begin_explicitly(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # The write lock first: a transaction that reads and then writes could not upgrade its lock
        # while another writer waits.
        writing = connection.get_execution_options().get(WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
