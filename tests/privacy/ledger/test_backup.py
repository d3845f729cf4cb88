"""A backup is one moment of the ledger, however busy it is, and serves only while it is current."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults, folder_lines, parse_log
from privacy.errors import (
    LedgerError,
    LedgerExists,
    LedgerMismatch,
    LedgerMissing,
    LedgerRolledBack,
)
from privacy.ledger import Ledger
from privacy.ledger.backup import back_up
from privacy.ledger.database import Database

ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@pytest.fixture
def target(place) -> Path:
    return place.folder.parent / "backups" / "monday"


def faults(folder: Path) -> list:
    """What `privacy-audit ledger` finds in the folder."""
    log = parse_log(str(folder), folder_lines(folder))
    return list(check(log, receipts=[], tables=folder_faults(folder, log)).violations)


def test_a_backup_of_a_busy_ledger_is_one_moment_of_it(ledger, place, asker, target) -> None:
    started, done = Barrier(5), Event()

    def ask(worker: int) -> None:
        number = 0
        while not done.is_set():
            names = [f"s{number + worker}", f"s{number + worker + 1}"]
            asker.settle(ledger, f"{worker}/{number}", *names, client=f"c{worker}")
            number += 1
            if number == 3:
                started.wait()

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, worker) for worker in range(4)]
        started.wait()
        try:
            heads = [back_up(place.folder, target.with_name(f"{number}")) for number in range(3)]
        finally:
            done.set()
        for worker in asking:
            worker.result()
    # Each of the four had settled three requests before, and all were still asking.
    assert heads[0].entry >= 12
    assert [head.entry for head in heads] == sorted(head.entry for head in heads)
    log = {entry.number: entry.hash() for entry in ledger.entries()}
    for number, head in enumerate(heads):
        assert faults(target.with_name(f"{number}")) == []
        assert log[head.entry] == head.entry_hash
    asker.settle(ledger, "the last one", "z")
    ledger.close()
    with Ledger.open(target.with_name("2"), witness=place.witness) as old:
        assert "restored from an older copy" in old.rolled_back
        with pytest.raises(LedgerRolledBack):
            asker.settle(old, "r", "new")
        assert asker.settle(old, "0/0", "s0", "s1", client="c0").repeated


def test_a_backup_that_is_current_goes_on(ledger, place, asker, target) -> None:
    first = asker.settle(ledger, "r1", "a")
    head = back_up(place.folder, target)
    assert head == ledger.head()
    ledger.close()
    with Ledger.open(target, witness=place.witness) as again:
        assert again.rolled_back is None
        assert asker.settle(again, "r1", "a").receipt == first.receipt
        assert asker.settle(again, "r2", "a", "b", payload=b"new").payloads == [b"noisy a", b"new"]
        assert again.budget().spent == 200
    # And from then on the ledger that it was taken from is the old copy.
    with place.open() as old:
        assert old.rolled_back is not None


def test_everything_that_belongs_to_the_ledger_is_in_it_and_nothing_else(
    place, plan, asker, target
) -> None:
    with place.create(plan, files={"split.json": b"{}\n"}) as ledger:
        asker.settle(ledger, "r1", "a")
        (place.folder / "notes").write_text("of the custodian")
        os.chmod(place.folder / "notes", 0o640)
        back_up(place.folder, target)
        assert {path.name for path in target.iterdir()} == {
            "ledger.sqlite",
            "notes",
            "public-key.pem",
            "secret.key",
            "signing-key.pem",
            "split.json",
        }
        for name in ("notes", "signing-key.pem", "split.json"):
            original, copy = place.folder / name, target / name
            assert copy.read_bytes() == original.read_bytes()
            assert copy.stat().st_mode == original.stat().st_mode
        assert stat.S_IMODE(target.stat().st_mode) == 0o700
        assert [path.name for path in target.parent.iterdir()] == ["monday"]
        with Ledger.open(target, witness=place.witness, read_only=True) as copy:
            assert list(copy.log_lines()) == list(ledger.log_lines())


def test_a_backup_never_replaces_anything(ledger, place, target) -> None:
    target.mkdir(parents=True)
    with pytest.raises(LedgerExists, match="new folder"):
        back_up(place.folder, target)
    assert list(target.iterdir()) == []


def test_there_is_no_backup_of_nothing_or_of_a_ledger_that_does_not_hold(
    ledger, place, asker, target
) -> None:
    with pytest.raises(LedgerMissing):
        back_up(target, target.with_name("tuesday"))
    asker.settle(ledger, "r1", "a")
    place.change("DELETE FROM answers")
    with pytest.raises(LedgerError, match="stored answers"):
        back_up(place.folder, target)
    place.change("UPDATE state SET schema_version = 1")
    with pytest.raises(LedgerMismatch, match="migrate-ledger"):
        back_up(place.folder, target)
    assert list(target.parent.iterdir()) == []


def test_a_ledger_moves_to_postgresql_and_back(
    place, plan, asker, target, tmp_path, postgresql
) -> None:
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a", "b")
        lines = list(ledger.log_lines())
    other = target.with_name("moved")
    if place.database_url is not None:
        # Its schema is in this database already: it cannot be copied over itself.
        with pytest.raises(LedgerError, match="already exists"):
            back_up(place.folder, other, postgresql)
        assert list(target.parent.iterdir()) == []
        back_up(place.folder, target)
        return
    back_up(place.folder, target, postgresql)
    place.schemas.append(Database.of(target).server)
    assert stat.S_IMODE((target / "database-url").stat().st_mode) == 0o600
    assert not (target / "ledger.sqlite").exists()
    with Ledger.open(target, witness=place.witness) as moved:
        assert moved.rolled_back is None
        assert list(moved.log_lines()) == lines
        asker.settle(moved, "r2", "c")
    assert faults(target) == []
    back_up(target, other)
    with Ledger.open(other, witness=place.witness) as back:
        assert back.rolled_back is None
        assert back.budget().spent == 300


def test_a_backup_between_two_signing_keys_has_the_one_that_signs(
    ledger, place, asker, target
) -> None:
    asker.settle(ledger, "r1", "a")
    ledger.rotate_key()
    asker.settle(ledger, "r2", "b")
    back_up(place.folder, target)
    assert faults(target) == []
    assert (target / "signing-key.pem").read_bytes() == (
        place.folder / "signing-key.pem"
    ).read_bytes()
    ledger.close()
    with Ledger.open(target, witness=place.witness) as again:
        assert again.rolled_back is None
        assert again.key_history == ledger.key_history
        assert again.public_key != again.key_history.keys[0].public_key
        asker.settle(again, "r3", "c")
