"""Reading a ledger back: everything that must hold before it is believed.

Opening replays the whole chain. That is linear in the number of entries (tens of microseconds
each) and never touches the stored answers themselves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, func, inspect, select
from sqlalchemy.exc import DBAPIError

from privacy import canonical_json
from privacy.errors import LedgerCorrupt, LedgerMismatch, LedgerUnreachable, SignatureInvalid
from privacy.ledger import store
from privacy.ledger.accounts import Accounts, Opening
from privacy.ledger.chain import NO_PREDECESSOR, Entry, entry_hash
from privacy.ledger.database import Database
from privacy.ledger.keys import LedgerKeys
from privacy.receipts import SignedHead, verify

_ADVICE: Final = (
    "run `privacy-audit ledger` on it to see what is wrong; nothing is charged or answered from it"
)


@dataclass(frozen=True)
class Contents:
    """A ledger whose tables were read and agree with each other."""

    opening: Opening
    accounts: Accounts
    head: SignedHead
    secret_check: bytes


def read(connection: Connection, database: Database) -> Contents:
    """Replays the chain and compares it with the tables beside it.

    Raises LedgerMismatch for another schema, LedgerCorrupt for the first thing that does not fit,
    LedgerUnreachable when the connection is lost.
    """
    try:
        state = _read_state(connection, database)
        accounts, last = _replay(connection)
        _compare_tables(connection, accounts)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise LedgerUnreachable(f"{database} broke the connection off; try again") from error
        raise LedgerCorrupt(f"{database} cannot be read ({error.orig}); {_ADVICE}") from error
    return Contents(
        opening=accounts.opening,
        accounts=accounts,
        head=_check_state(state, accounts, last),
        secret_check=state.secret_check,
    )


def require_keys(contents: Contents, keys: LedgerKeys, folder: Path) -> None:
    """Raises LedgerMismatch when the key files in `folder` are those of another ledger."""
    current = contents.accounts.keys.current
    if keys.public != current or keys.secret_check() != contents.secret_check:
        raise LedgerMismatch(
            f"the key files in {folder} are not those of ledger {contents.opening.ledger_id}; "
            "restore its own"
        )


def read_version(connection: Connection, database: Database) -> int:
    """The schema version of the tables. Raises LedgerMismatch where there are no such tables."""
    if not inspect(connection).has_table(store.state.name):
        raise LedgerMismatch(f"{database} is a database, but not of a ledger")
    version = connection.scalar(select(store.state.c.schema_version))
    if type(version) is not int:
        raise LedgerCorrupt(f"{database} says nothing of its schema version; {_ADVICE}")
    return version


def unreadable(database: Database, version: int) -> str:
    """What to do with tables of another schema version than this program's."""
    remedy = (
        f"bring it up to date with `teacher-server migrate-ledger --ledger {database.folder}`"
        if version < store.SCHEMA_VERSION
        else "use the program that wrote it, or a newer one"
    )
    return (
        f"{database} has schema version {version}, this program reads version "
        f"{store.SCHEMA_VERSION}; {remedy}"
    )


def require_current(connection: Connection, database: Database) -> None:
    """Raises LedgerMismatch for tables of another schema version, or of no ledger."""
    version = read_version(connection, database)
    if version != store.SCHEMA_VERSION:
        raise LedgerMismatch(unreadable(database, version))


def _read_state(connection: Connection, database: Database) -> Row[Any]:
    require_current(connection, database)
    return connection.execute(select(store.state)).one()


def _replay(connection: Connection) -> tuple[Accounts, tuple[int, bytes]]:
    accounts: Accounts | None = None
    previous, expected = NO_PREDECESSOR, 0
    for number, digest, body in store.read_entries(connection):
        try:
            entry = Entry.from_json(canonical_json.decode(body))
            if accounts is None:
                accounts = Accounts(Opening.of(entry))
        except ValueError as error:
            raise LedgerCorrupt(f"entry {number} cannot be read ({error}); {_ADVICE}") from error
        if not number == entry.number == expected:
            raise LedgerCorrupt(f"entry {expected} is missing; {_ADVICE}")
        if entry_hash(body) != digest or entry.previous != previous:
            raise LedgerCorrupt(f"entry {number} does not fit its hash or predecessor; {_ADVICE}")
        if faults := accounts.apply(entry):
            raise LedgerCorrupt(f"entry {number} does not add up: {faults[0]}; {_ADVICE}")
        previous, expected = digest, expected + 1
    if accounts is None:
        raise LedgerCorrupt(f"the ledger has no opening entry; {_ADVICE}")
    return accounts, (expected - 1, previous)


def _check_state(state: Row[Any], accounts: Accounts, last: tuple[int, bytes]) -> SignedHead:
    plan = accounts.opening.plan
    found = (state.last_entry, state.last_hash, state.spent, state.draws)
    limits = (state.budget, state.draws_budget)
    if found != (*last, accounts.spent, accounts.draws) or limits != (
        plan.answer_units,
        plan.draws,
    ):
        raise LedgerCorrupt(f"the ledger's totals are not those of its entries; {_ADVICE}")
    try:
        head = SignedHead.from_json_bytes(state.head)
        accounts.keys.verify(accounts.opening.public_key)
        verify(head, accounts.keys.at(head.entry))
    except (ValueError, SignatureInvalid) as error:
        raise LedgerCorrupt(f"the ledger's signed head does not hold ({error})") from error
    if (head.ledger_id, head.entry, head.entry_hash, head.spent) != (
        accounts.opening.ledger_id,
        *last,
        accounts.spent,
    ):
        raise LedgerCorrupt(f"the ledger's signed head is not its last entry; {_ADVICE}")
    return head


def _compare_tables(connection: Connection, accounts: Accounts) -> None:
    requests = {
        (client, request_id): entry
        for client, request_id, entry in connection.execute(
            select(store.requests.c.client, store.requests.c.request_id, store.requests.c.entry)
        )
    }
    if requests != accounts.requests:
        raise LedgerCorrupt(f"the stored requests are not those of the entries; {_ADVICE}")
    clients = connection.execute(select(store.clients)).all()
    spent = {row.client: row.spent for row in clients if row.spent}
    caps = {row.client: row.cap for row in clients if row.cap is not None}
    if spent != {name: units for name, units in accounts.client_spent.items() if units} or caps != {
        name: cap for name, cap in accounts.caps.items() if cap is not None
    }:
        raise LedgerCorrupt(f"what clients spent is not what the entries say; {_ADVICE}")
    counted = connection.execute(
        select(store.answers.c.entry, func.count()).group_by(store.answers.c.entry)
    )
    answers: dict[int, int] = {row[0]: row[1] for row in counted}
    if answers != accounts.new_answers:
        raise LedgerCorrupt(f"the stored answers are not those of the entries; {_ADVICE}")
    used = connection.scalar(select(func.count()).select_from(store.training))
    if used != len(accounts.training):
        raise LedgerCorrupt(f"the training runs used are not those of the entries; {_ADVICE}")
