"""When the disk, the database or the witness fails: nothing leaves, and the ledger stops."""

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from privacy.errors import LedgerFault, LedgerInUse
from privacy.ledger.witness import Witness, read_heads
from privacy.receipts import SignedHead

PATIENCE = 120.0
ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


def stopped(ledger, asker) -> None:
    """Everything that charges or answers refuses."""
    for use in (
        lambda: asker.settle(ledger, "r9", "z"),
        lambda: asker.settle(ledger, "r1", "a"),
        lambda: ledger.find("alice", "r1", asker.content),
        lambda: ledger.stored([asker.pending(ledger, "a").key]),
        lambda: ledger.check("alice", charge=0, draws=0),
        lambda: ledger.set_cap("alice", 1),
    ):
        with pytest.raises(LedgerFault, match="open it again"):
            use()


def test_the_witness_sees_every_entry_after_the_commit_and_before_the_caller(
    ledger, place, asker, monkeypatch
) -> None:
    seen = []
    advance = Witness.advance

    def watch(self: Witness, head: SignedHead) -> None:
        with place.open(read_only=True) as reader:
            seen.append((head.entry, reader.head().entry))
        advance(self, head)

    monkeypatch.setattr(Witness, "advance", watch)
    for number in (1, 2):
        settled = asker.settle(ledger, f"r{number}", f"s{number}")
        assert seen[-1] == (number, number)
        kept = read_heads(place.witness.read_bytes())[0]
        assert kept.entry_hash == settled.receipt.entry_hash


def test_a_failing_witness_stops_the_ledger_and_the_retry_is_free(
    ledger, place, asker, monkeypatch
) -> None:
    def full(self: Witness, head: SignedHead) -> None:
        raise OSError("no space left on the witness's device")

    with monkeypatch.context() as patch:
        patch.setattr(Witness, "advance", full)
        with pytest.raises(LedgerFault, match="no space left"):
            asker.settle(ledger, "r1", "a")
    stopped(ledger, asker)
    ledger.close()
    with place.open() as again:
        assert again.rolled_back is None
        found = again.find("alice", "r1", asker.content)
        assert found.payloads == [b"noisy a"]
        assert asker.settle(again, "r1", "a", payload=b"other").payloads == [b"noisy a"]
        assert again.budget().spent == 100


def test_no_other_thread_may_send_what_the_witness_has_not_seen(
    ledger, place, asker, monkeypatch
) -> None:
    writing, release = threading.Event(), threading.Event()
    advance = Witness.advance

    def slow(self: Witness, head: SignedHead) -> None:
        writing.set()
        assert release.wait(PATIENCE)
        advance(self, head)

    monkeypatch.setattr(Witness, "advance", slow)
    with ThreadPoolExecutor(3) as pool:
        settling = pool.submit(asker.settle, ledger, "r1", "a")
        assert writing.wait(PATIENCE)
        finding = pool.submit(ledger.find, "alice", "r1", asker.content)
        looking = pool.submit(ledger.stored, [asker.pending(ledger, "a").key])
        # The entry is committed and visible to both, and still they wait.
        for waiting in (finding, looking):
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
        release.set()
        assert finding.result().payloads == settling.result().payloads
        assert list(looking.result().values()) == [b"noisy a"]


def test_what_the_witness_never_saw_is_not_sent_by_another_thread_either(
    ledger, asker, monkeypatch
) -> None:
    writing, release = threading.Event(), threading.Event()

    def failing(self: Witness, head: SignedHead) -> None:
        writing.set()
        assert release.wait(PATIENCE)
        raise OSError("the witness's device is gone")

    monkeypatch.setattr(Witness, "advance", failing)
    with ThreadPoolExecutor(2) as pool:
        settling = pool.submit(asker.settle, ledger, "r1", "a")
        assert writing.wait(PATIENCE)
        finding = pool.submit(ledger.find, "alice", "r1", asker.content)
        release.set()
        for failed in (settling, finding):
            with pytest.raises(LedgerFault):
                failed.result()


def fail_commits(ledger, after: bool) -> None:
    """The next commits of this ledger raise, after or instead of committing."""
    dialect = ledger._writer._writing.dialect
    commit = dialect.do_commit

    def broken(connection: object) -> None:
        if after:
            commit(connection)
        raise dialect.loaded_dbapi.OperationalError("disk I/O error")

    dialect.do_commit = broken


def test_a_commit_that_failed_after_all_is_looked_up_and_answered(ledger, place, asker) -> None:
    fail_commits(ledger, after=True)
    settled = asker.settle(ledger, "r1", "a")
    assert settled.payloads == [b"noisy a"]
    assert ledger.budget().spent == 100
    assert read_heads(place.witness.read_bytes())[0].entry == 1
    assert asker.settle(ledger, "r2", "b").charged == 100


@ON_SQLITE
def test_a_commit_that_failed_releases_nothing_and_stops_the_ledger(ledger, place, asker) -> None:
    fail_commits(ledger, after=False)
    with pytest.raises(LedgerFault, match="disk I/O error"):
        asker.settle(ledger, "r1", "a")
    stopped(ledger, asker)
    ledger.close()
    with place.open() as again:
        assert again.find("alice", "r1", asker.content) is None
        assert again.budget().spent == 0
        assert asker.settle(again, "r1", "a").charged == 100


@ON_SQLITE
def test_a_full_disk_charges_nothing_and_stops_the_ledger(ledger, place, asker) -> None:
    asker.settle(ledger, "r0", "s0")

    @event.listens_for(ledger._engine, "connect")
    def no_room(connection: sqlite3.Connection, _: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    ledger._engine.dispose()
    with pytest.raises(LedgerFault, match="full"):
        asker.settle(ledger, "r1", "a", payload=bytes(1_000_000))
    stopped(ledger, asker)
    ledger.close()
    with place.open() as again:
        assert again.budget().spent == 100
        assert again.head().entry == 1
        assert asker.settle(again, "r1", "a").charged == 100


def test_the_database_itself_refuses_a_debit_past_the_limit(small_ledger, place) -> None:
    small_ledger(units=100).close()
    for column, value in (("spent", 101), ("spent", -1), ("draws", 10_001)):
        with pytest.raises(IntegrityError, match=r"(?i)check constraint"):
            place.change(f"UPDATE state SET {column} = {value}")


@ON_SQLITE
def test_every_commit_is_synchronous(ledger) -> None:
    with ledger._engine.connect() as connection:
        full = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    assert (full, mode) == (2, "wal")


def test_a_forked_child_cannot_use_its_parents_ledger(ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    child = os.fork()
    if child == 0:
        # Nothing of pytest may run in the child, whatever happens.
        code = 1
        try:
            ledger.find("alice", "r1", asker.content)
        except LedgerFault:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert asker.settle(ledger, "r2", "b").charged == 100


def test_a_closed_ledger_answers_nothing(ledger, place, asker) -> None:
    asker.settle(ledger, "r1", "a")
    ledger.close()
    ledger.close()
    stopped(ledger, asker)


@ON_SQLITE
def test_a_closed_ledger_lets_go_of_its_lock(ledger, place) -> None:
    ledger.close()
    with place.open(), pytest.raises(LedgerInUse):
        place.open()


def test_a_read_only_ledger_takes_no_charge(ledger, place, asker) -> None:
    with place.open(read_only=True) as reader, pytest.raises(LedgerFault, match="read-only"):
        asker.settle(reader, "r1", "a")
    assert ledger.budget().spent == 0
