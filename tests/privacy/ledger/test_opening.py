"""A ledger that was touched by anybody else is not believed."""

import os
import shutil
import sqlite3

import pytest

from privacy.errors import LedgerCorrupt, LedgerMismatch
from privacy.ledger import Ledger

ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@pytest.fixture
def closed(place, training_plan, asker):
    """Six entries of all kinds, closed."""
    with place.create(training_plan, default_cap=5000) as ledger:
        asker.settle(ledger, "r1", "a", "b")
        ledger.set_cap("alice", 4000)
        ledger.charge_training(training_plan.training[0], "teacher-1", "ab" * 32)
        asker.settle(ledger, "r2", "b", "c", client="bob")
        asker.settle(ledger, "r3", "a")
    return place


CHANGES = {
    "refund": "UPDATE state SET spent = 0",
    "more budget": "UPDATE state SET budget = budget + 1",
    "draws back": "UPDATE state SET draws = 0",
    "edited hash": "UPDATE entries SET hash = (SELECT hash FROM entries WHERE number = 2)"
    " WHERE number = 1",
    "dropped entry": "DELETE FROM entries WHERE number = 2",
    "last entry dropped": "DELETE FROM entries WHERE number = 5",
    "renumbered": "UPDATE entries SET number = 9 WHERE number = 3",
    "no opening entry": "DELETE FROM entries WHERE number = 0",
    "no entries": "DELETE FROM entries",
    "not even JSON": "UPDATE entries SET body = hash WHERE number = 4",
    "client refunded": "UPDATE clients SET spent = 0 WHERE client = 'bob'",
    "cap raised": "UPDATE clients SET cap = 5000 WHERE client = 'alice'",
    "cap dropped": "UPDATE clients SET cap = NULL WHERE client = 'alice'",
    "answer dropped": "DELETE FROM answers WHERE entry = 4",
    "answer moved": "UPDATE answers SET entry = 1 WHERE entry = 4",
    "request dropped": "DELETE FROM requests WHERE request_id = 'r2'",
    "request renamed": "UPDATE requests SET request_id = 'r9' WHERE request_id = 'r2'",
    "training given back": "DELETE FROM training",
    "head replaced": "UPDATE state SET head = last_hash",
}
EDITS = {
    "sqlite": "CAST(replace(CAST(body AS TEXT), '\"charge\":200', '\"charge\":100') AS BLOB)",
    "postgresql": "convert_to(replace(convert_from(body, 'UTF8'),"
    " '\"charge\":200', '\"charge\":100'), 'UTF8')",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_table_is_noticed(closed, change: str) -> None:
    assert closed.change(CHANGES[change]) >= 1
    with pytest.raises(LedgerCorrupt):
        closed.open()


def test_an_edited_entry_is_noticed(closed) -> None:
    edited = EDITS["postgresql" if closed.database_url else "sqlite"]
    before = closed.bodies()
    assert closed.change(f"UPDATE entries SET body = {edited} WHERE number = 1") == 1
    assert closed.bodies() != before
    with pytest.raises(LedgerCorrupt, match="entry 1 does not fit"):
        closed.open()


@ON_SQLITE
@pytest.mark.parametrize(
    "change", ["hash = 17", "body = replace(CAST(body AS TEXT), 'alice', 'carol')"]
)
def test_a_value_of_another_type_is_noticed(closed, change: str) -> None:
    """SQLite keeps whatever type is written."""
    assert closed.change(f"UPDATE entries SET {change} WHERE number = 1") == 1
    with pytest.raises(LedgerCorrupt):
        closed.open()


def test_untouched_it_opens_again_and_again(closed) -> None:
    for _ in range(2):
        with closed.open() as ledger:
            assert ledger.budget().spent == 300
            assert ledger.budget("bob").client_spent == 100


def test_the_lock_is_free_again_after_a_failed_opening(closed) -> None:
    head = closed.witness.read_bytes()
    closed.witness.write_bytes(head.replace(b'"ledger_id":"', b'"ledger_id":"0'))
    with pytest.raises(LedgerMismatch):
        closed.open()
    closed.witness.write_bytes(head)
    closed.open().close()


def test_another_schema_version_is_refused(closed) -> None:
    closed.change("UPDATE state SET schema_version = 99")
    with pytest.raises(LedgerMismatch, match="schema version 99"):
        closed.open()


@ON_SQLITE
def test_any_other_database_is_refused(place, plan) -> None:
    place.create(plan).close()
    os.remove(place.folder / "ledger.sqlite")
    connection = sqlite3.connect(place.folder / "ledger.sqlite")
    connection.execute("CREATE TABLE something (x)")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerMismatch, match="not of a ledger"):
        place.open()
    (place.folder / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(LedgerCorrupt, match="cannot be read"):
        place.open()


@pytest.mark.parametrize("name", ["signing-key.pem", "secret.key"])
def test_a_ledger_does_not_open_with_keys_that_are_not_its_own(
    closed, tmp_path, plan, name: str
) -> None:
    other = tmp_path / "other"
    Ledger.create(other, dataset_id="x", plan=plan, witness=tmp_path / "w").close()
    shutil.copy(other / name, closed.folder / name)
    with pytest.raises(LedgerMismatch, match="key files"):
        closed.open()
    (closed.folder / name).write_bytes(b"nonsense")
    with pytest.raises(LedgerMismatch):
        closed.open()
    os.remove(closed.folder / name)
    with pytest.raises(LedgerMismatch, match="is missing"):
        closed.open()
