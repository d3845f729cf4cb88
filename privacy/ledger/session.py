"""Opening a ledger in this process: everything that must hold before it is used."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from privacy.errors import LedgerCorrupt
from privacy.ledger import creation, lookup, opening, rotation, store
from privacy.ledger.book import Book
from privacy.ledger.database import Database
from privacy.ledger.vouching import vouch
from privacy.ledger.witness import Witness
from privacy.ledger.writer import Writer
from privacy.receipts import Receipt, SignedHead, verify

ONLY_WRITER: Final = "sqlite"
"""Name of a SQLite ledger's writer in the table of writers."""


@dataclass(frozen=True)
class Session:
    """What a process holds of a ledger while it has it open."""

    engine: Engine
    writer: Writer
    book: Book


def start(
    folder: Path,
    witness: Path,
    *,
    read_only: bool,
    trusted_head: SignedHead | Receipt | None,
) -> Session:
    """Reads the whole ledger, compares it with its witness, and is ready to write. See `open`."""
    database = Database.of(folder)
    database.require()
    creation.require_outside(folder, witness)
    lock = None if read_only else database.lock()
    engine = database.readable() if read_only else database.writable()
    try:
        with engine.connect() as connection:
            contents = opening.read(connection, database)
        if not read_only and rotation.unfinished(folder):
            contents = _settle_rotation(folder, engine, database)
        history = contents.accounts.keys
        keys = rotation.read_keys(folder, history.current)
        opening.require_keys(contents, keys, folder)
        kept = Witness(
            witness,
            lambda signed: verify(signed, history.at(signed.entry)),
            lambda number: _recorded_hash(engine, number),
        )
        head, rolled_back = vouch(
            engine,
            kept,
            contents.opening.ledger_id,
            trusted_head,
            read_only=read_only,
            alone=lock is not None,
        )
    except BaseException as error:
        engine.dispose()
        if lock is not None:
            lock.release()
        if isinstance(error, DBAPIError):
            raise LedgerCorrupt(f"{database} cannot be read ({error.orig})") from error
        raise
    name = secrets.token_hex(8) if lock is None else ONLY_WRITER
    book = Book(contents.opening, keys, history, name, rolled_back)
    writer = Writer(folder, engine, kept, head, book, lock, read_only=read_only)
    return Session(engine, writer, book)


def _settle_rotation(folder: Path, engine: Engine, database: Database) -> opening.Contents:
    """Ends a rotation that was interrupted; the ledger's contents after it.

    Nobody else settles it meanwhile, and no commit that names the new key is still under way.
    """
    writing = engine.execution_options(**{store.WRITING: True})
    with rotation.alone(folder), writing.connect() as connection:
        lookup.lock_state(connection)
        contents = opening.read(connection, database)
        rotation.settle(folder, contents.accounts.keys.current)
    return contents


def _recorded_hash(engine: Engine, number: int) -> bytes | None:
    """Of one entry, as it is committed now."""
    with engine.connect() as connection:
        return lookup.recorded_hash(connection, number)
