"""Where a ledger's tables are: in SQLite in its folder, or in PostgreSQL when the folder says so.

The folder always holds the keys and what the application keeps beside them. With PostgreSQL it
also holds `database-url`, and every replica's host has a copy of it. Everything above this module
is plain SQL through SQLAlchemy Core (store.py) and does not know which of the two it speaks to.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from privacy.errors import LedgerMissing
from privacy.ledger import sqlite
from privacy.ledger.postgresql import PostgresSchema
from privacy.ledger.sqlite import WriterLock

URL_FILE: Final = "database-url"


@dataclass(frozen=True)
class Database:
    """The tables of the ledger in `folder`. server: None for the SQLite file in the folder."""

    folder: Path
    server: PostgresSchema | None = None

    @classmethod
    def of(cls, folder: Path) -> "Database":
        """The database of an existing ledger. Raises LedgerMismatch for a damaged `database-url`.

        Looks at the folder only: whether the tables are there, `require` finds out.
        """
        try:
            text = (folder / URL_FILE).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return cls(folder)
        return cls(folder, PostgresSchema.parse(text))

    def __str__(self) -> str:
        return str(self.server or self.folder / sqlite.DATABASE)

    def require(self) -> None:
        """Raises LedgerMissing when there is no ledger, LedgerUnreachable without its server."""
        if self.server is not None:
            self.server.require()
        elif not (self.folder / sqlite.DATABASE).is_file():
            raise LedgerMissing(
                f"there is no ledger in {self.folder}; name the folder that it was opened in"
            )

    def writable(self) -> Engine:
        """An engine whose transactions write when their connection has the option WRITING."""
        if self.server is not None:
            return self.server.writable()
        return sqlite.writable_engine(self.folder / sqlite.DATABASE)

    def readable(self) -> Engine:
        """An engine that cannot write, and whose transactions each see one snapshot."""
        if self.server is not None:
            return self.server.readable()
        return sqlite.readable_engine(self.folder / sqlite.DATABASE)

    def lock(self) -> WriterLock | None:
        """What makes this process the one that writes; None where several may (PostgreSQL).

        Raises LedgerInUse when another process holds it.
        """
        return None if self.server is not None else WriterLock(self.folder)
