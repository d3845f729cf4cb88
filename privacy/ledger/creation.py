"""Making a ledger: once for a data set, wholly or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from privacy.budget import BudgetPlan, verify_plan
from privacy.errors import InvalidPlan, LedgerError, LedgerExists
from privacy.ledger import store
from privacy.ledger.accounts import Opening
from privacy.ledger.binding import bind, binding_path, require_unbound
from privacy.ledger.chain import NO_PREDECESSOR, NOTHING_NEW, Entry
from privacy.ledger.clock import utc_now
from privacy.ledger.database import URL_FILE, Database
from privacy.ledger.durable import create_durably, sync_folder
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.postgresql import PostgresSchema
from privacy.ledger.witness import Witness
from privacy.receipts import SignedHead, sign

_LARGEST_TOTAL: Final = 2**62
"""Totals stay inside the 64-bit integers of every database."""


def create(
    folder: Path,
    *,
    dataset_id: str,
    plan: BudgetPlan,
    witness: Path,
    default_cap: int | None = None,
    data: Path | None = None,
    files: Mapping[str, bytes] | None = None,
    database_url: str | None = None,
) -> None:
    """Writes a new ledger to `folder`, its first head to `witness`, its id beside `data`.

    files: what an application keeps beside the ledger, by name; there as soon as the ledger is.
    database_url: of a PostgreSQL database for the tables; None: a SQLite file in the folder.

    The ledger appears under its name only when everything else is on disk: after a crash at any
    point there is either no ledger, or a whole one. (What a crash may leave beside it, a schema in
    the PostgreSQL database or a witness, belongs to no ledger and holds no answer.) Raises
    LedgerExists when folder, witness or data already have a ledger, InvalidPlan when the plan
    promises more than it keeps, LedgerMismatch, LedgerUnreachable or LedgerError for the
    database.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LedgerExists(
            f"{folder} exists already; a ledger is never overwritten: open it, or choose another "
            "folder"
        )
    require_outside(folder, witness)
    if data is not None:
        require_unbound(data)
    verify_plan(plan)
    if not (0 <= plan.answer_units <= _LARGEST_TOTAL and 0 <= plan.draws <= _LARGEST_TOTAL):
        raise InvalidPlan(
            f"an answering budget of {plan.answer_units} units and {plan.draws} draws cannot be "
            f"counted; both must lie in [0, 2^62]: lower epsilon"
        )
    if default_cap is not None and default_cap < 0:
        raise InvalidPlan(f"the cap per client must be at least 0 units, not {default_cap}")
    keys = LedgerKeys.generate()
    opening = Opening(secrets.token_hex(16), dataset_id, keys.public, plan, default_cap)
    server = None if database_url is None else PostgresSchema.new(database_url, opening.ledger_id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
    building.mkdir(mode=0o700)
    # Undone in reverse order when a later step fails.
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, building, ignore_errors=True)
        keys.write(building)
        for name, content in (files or {}).items():
            create_durably(building / name, content)
        if server is not None:
            create_durably(building / URL_FILE, server.to_text().encode() + b"\n", mode=0o600)
            server.create()
            undo.callback(server.drop)
        head = _write_tables(Database(building, server), opening, keys)
        sync_folder(building)
        Witness.create(witness, head)
        undo.callback(witness.unlink, missing_ok=True)
        if data is not None:
            bind(data, opening.ledger_id, dataset_id, keys.public)
            undo.callback(binding_path(data).unlink, missing_ok=True)
        try:
            os.rename(building, folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise LedgerExists(f"{folder} was made by somebody else just now") from None
            raise
        undo.pop_all()
    sync_folder(folder.parent)


def require_outside(folder: Path, witness: Path) -> None:
    """Raises InvalidPlan when the witness lies in the ledger's folder.

    A backup of the folder would then restore both, and a rollback would go unseen.
    """
    if witness.resolve().is_relative_to(folder.resolve()):
        raise InvalidPlan(
            f"the witness {witness} lies inside the ledger {folder}: a backup would restore both, "
            "and nobody would notice; put it on other storage"
        )


def _write_tables(database: Database, opening: Opening, keys: LedgerKeys) -> SignedHead:
    entry = Entry(
        number=0,
        previous=NO_PREDECESSOR,
        kind="open",
        time=utc_now(),
        client="",
        request_id="",
        teacher_version="",
        releases=0,
        charge=0,
        draws=0,
        spent_after=0,
        draws_after=0,
        answers_digest=NOTHING_NEW,
        details=opening.details(),
    )
    head = sign(SignedHead(opening.ledger_id, 0, entry.hash(), 0), keys.signing)
    engine = database.writable().execution_options(**{store.WRITING: True})
    try:
        with engine.begin() as connection:
            store.metadata.create_all(connection)
            connection.execute(
                insert(store.state).values(
                    id=1,
                    schema_version=store.SCHEMA_VERSION,
                    secret_check=keys.secret_check(),
                    budget=opening.plan.answer_units,
                    draws_budget=opening.plan.draws,
                    spent=0,
                    draws=0,
                    last_entry=0,
                    last_hash=head.entry_hash,
                    head=head.to_json_bytes(),
                )
            )
            connection.execute(
                insert(store.entries).values(number=0, hash=head.entry_hash, body=entry.canonical())
            )
    except DBAPIError as error:
        raise LedgerError(f"{database} could not be written ({error.orig})") from error
    finally:
        engine.dispose()
    return head
