"""A ledger of schema version 1, as its program left it, goes on under this one.

`version_1.json` was written by that program: tables as SQL, keys, witness, receipts and log.
"""

import json
import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults, parse_log
from privacy.errors import LedgerCorrupt, LedgerInUse, LedgerMismatch
from privacy.ledger import Ledger, store
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.migration import migrate
from privacy.ledger.sqlite import WriterLock
from privacy.receipts import Receipt, verify

OLD = json.loads(Path(__file__).with_name("version_1.json").read_text(encoding="utf-8"))
ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
pytestmark = ON_SQLITE


@dataclass
class OldLedger:
    folder: Path
    witness: Path

    def open(self, **options: Any) -> Ledger:
        return Ledger.open(self.folder, witness=self.witness, **options)

    def version(self) -> int:
        connection = sqlite3.connect(self.folder / "ledger.sqlite")
        (version,) = connection.execute("SELECT schema_version FROM state").fetchone()
        connection.close()
        return version

    def change(self, statement: str) -> None:
        connection = sqlite3.connect(self.folder / "ledger.sqlite")
        assert connection.execute(statement).rowcount == 1
        connection.commit()
        connection.close()


def unpack(folder: Path, witness: Path) -> OldLedger:
    """The ledger of version 1, as its program left it."""
    folder.mkdir(parents=True)
    witness.parent.mkdir()
    witness.write_text(OLD["witness"])
    signing = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(OLD["signing_key"]))
    LedgerKeys(signing, bytes.fromhex(OLD["secret"])).write(folder)
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.executescript("\n".join(OLD["sql"]))
    connection.close()
    return OldLedger(folder, witness)


@pytest.fixture
def old(place) -> OldLedger:
    return unpack(place.folder, place.witness)


def test_an_older_ledger_names_the_command_and_is_not_changed(old) -> None:
    for read_only in (True, False):
        with pytest.raises(LedgerMismatch, match="teacher-server migrate-ledger --ledger"):
            old.open(read_only=read_only)
    assert old.version() == 1


def test_a_migrated_ledger_goes_on_where_it_stood(old, asker) -> None:
    done = migrate(old.folder)
    assert (done.version_before, done.version) == (1, store.SCHEMA_VERSION)
    with old.open() as ledger:
        assert ledger.rolled_back is None
        state = ledger.budget("alice")
        assert (state.spent, state.client_spent, state.cap) == (300, 200, 700)
        assert ledger.reserved_training() == ()
        # Every answer and receipt of the old program, found under its request id.
        found = ledger.find("alice", "r1", b"c" * 32)
        assert found.payloads == [b"noisy a", b"noisy b"]
        assert found.receipt == Receipt.from_json_bytes(OLD["receipts"][0].encode())
        settled = asker.settle(ledger, "r2", "c", "d", payload=b"of version 2")
        assert settled.payloads == [b"noisy c", b"of version 2"]
        assert (settled.charged, settled.receipt.entry) == (100, 5)
    with old.open() as again:
        assert again.budget().spent == 400


def test_an_old_training_charge_is_the_one_charge_of_its_teacher(old) -> None:
    migrate(old.folder)
    with old.open() as ledger:
        charge = ledger.training_of("teacher-1")
        assert (charge.run, charge.weights) == (ledger.plan.training[0], None)
        # It names no weights, so that a crash before the folder was written can still be mended.
        receipt = ledger.charge_training(charge.run, "teacher-1", "ab" * 32)
        assert receipt.to_json_bytes().decode() in OLD["receipts"]
        assert ledger.head().entry == 4


def test_old_receipts_and_the_old_log_verify_beside_the_new_ones(old, asker) -> None:
    migrate(old.folder)
    receipts = [Receipt.from_json_bytes(receipt.encode()) for receipt in OLD["receipts"]]
    with old.open() as ledger:
        receipts.append(asker.settle(ledger, "r2", "d").receipt)
        lines = list(ledger.log_lines())
        assert ledger.public_key == bytes.fromhex(OLD["public_key"])
    assert len(receipts) == 4
    for receipt in receipts:
        verify(receipt, bytes.fromhex(OLD["public_key"]))
    # No byte of an old entry has changed.
    assert [line.decode() for line in lines[:6]] == OLD["log"][:6]
    log = parse_log(str(old.folder), lines)
    held = [(old.folder, receipt) for receipt in receipts]
    report = check(log, receipts=held, tables=folder_faults(old.folder, log))
    assert report.violations == ()
    assert report.receipts == 4


def test_a_ledger_that_crashed_before_its_witness_migrates_too(old) -> None:
    old.witness.write_text(OLD["witness_before_the_last_entry"])
    migrate(old.folder)
    with old.open() as ledger:
        assert ledger.rolled_back is None
        assert ledger.head().entry == 4


def test_a_restored_copy_stays_exhausted_through_a_migration(old, asker) -> None:
    migrate(old.folder)
    with old.open() as ledger:
        asker.settle(ledger, "r2", "d")
        asker.settle(ledger, "r3", "e")
    kept = old.folder / "ledger.sqlite.version-1"
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (old.folder / name).unlink(missing_ok=True)
    kept.replace(old.folder / "ledger.sqlite")
    migrate(old.folder)
    with old.open() as ledger:
        assert "restored from an older copy" in ledger.rolled_back


def test_the_tables_as_they_were_are_kept_for_the_owner_alone(old) -> None:
    kept = migrate(old.folder).kept
    assert kept == old.folder / "ledger.sqlite.version-1"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    connection = sqlite3.connect(kept)
    assert list(connection.iterdump()) == OLD["sql"]
    connection.close()


def test_migrating_again_changes_nothing(old) -> None:
    migrate(old.folder)
    before = (old.folder / "ledger.sqlite.version-1").stat().st_mtime_ns
    done = migrate(old.folder)
    assert (done.version_before, done.version, done.kept) == (2, 2, None)
    assert (old.folder / "ledger.sqlite.version-1").stat().st_mtime_ns == before


def test_a_ledger_that_another_process_writes_is_left_alone(old) -> None:
    lock = WriterLock(old.folder)
    with pytest.raises(LedgerInUse):
        migrate(old.folder)
    lock.release()
    assert old.version() == 1


def test_a_newer_version_is_refused(old) -> None:
    old.change("UPDATE state SET schema_version = 99")
    with pytest.raises(LedgerMismatch, match="newer one"):
        migrate(old.folder)
    assert old.version() == 99


@pytest.mark.parametrize(
    "change", ["UPDATE state SET spent = 0", "DELETE FROM answers WHERE entry = 4"]
)
def test_a_ledger_that_does_not_hold_keeps_its_version(old, change) -> None:
    old.change(change)
    with pytest.raises(LedgerCorrupt):
        migrate(old.folder)
    assert old.version() == 1
    connection = sqlite3.connect(old.folder / "ledger.sqlite")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "writers" not in tables
