"""A database server that goes away: nothing is charged, and the ledger goes on when it is back."""

import select
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError

from benchmarks.faults.database import OwnDatabase, own_database
from privacy.errors import LedgerFault, LedgerUnreachable, LedgerUnreadable
from privacy.ledger import Ledger
from privacy.ledger.reach import uncharged
from tests.privacy.ledger.conftest import Asker, Place

ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@pytest.fixture
def database(postgresql: str) -> Iterator[OwnDatabase]:
    """One that nobody else is connected to."""
    with own_database(postgresql) as found:
        yield found


@pytest.fixture
def away(database, tmp_path, plan, asker) -> Iterator[Ledger]:
    """A ledger with one answer, whose database takes no connection any more."""
    place = Place(tmp_path / "ledger", tmp_path / "elsewhere" / "head.json", database.url)
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
        database.admit(False)
        database.terminate()
        yield ledger


def test_every_use_says_so_and_the_ledger_goes_on(away: Ledger, database, asker: Asker) -> None:
    for use in (
        lambda: asker.settle(away, "r2", "b"),
        lambda: away.find("alice", "r1", asker.content),
        lambda: away.stored([asker.pending(away, "a").key]),
        lambda: away.check("alice", charge=0, draws=0),
        lambda: away.set_cap("alice", 1),
        lambda: away.budget(),
        lambda: list(away.log_lines()),
        lambda: away.rotate_key(),
    ):
        with pytest.raises(LedgerUnreachable, match="nothing was charged; see that PostgreSQL"):
            use()
    database.admit(True)
    assert away.budget().spent == 100
    assert asker.settle(away, "r1", "a").repeated
    assert asker.settle(away, "r2", "b").charged == 100
    assert sorted(path.name for path in away.folder.glob("*next*")) == []


def test_everybody_in_a_group_is_told(away: Ledger, database, asker: Asker) -> None:
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(asker.settle, away, f"r{n}", f"s{n}") for n in range(2, 26)]
        for call in calls:
            with pytest.raises(LedgerUnreachable):
                call.result()
    database.admit(True)
    assert [asker.settle(away, f"r{n}", f"s{n}").charged for n in range(2, 26)] == [100] * 24
    assert away.budget().spent == 2500


@pytest.mark.parametrize("statement", ["FROM state", "INSERT INTO entries", "INSERT INTO answers"])
def test_a_connection_that_is_ended_in_a_transaction(
    database, tmp_path, plan, asker, statement: str
) -> None:
    """Whatever was done by then is undone by the server."""
    place = Place(tmp_path / "ledger", tmp_path / "elsewhere" / "head.json", database.url)
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
        ended: list[int] = []

        @event.listens_for(ledger._engine, "after_cursor_execute")
        def end(*happened: object) -> None:
            if statement in str(happened[2]) and not ended:
                ended.append(database.terminate())

        with pytest.raises(LedgerUnreachable):
            asker.settle(ledger, "r2", "b")
        assert ended
        assert ledger.budget().spent == 100
        assert asker.settle(ledger, "r2", "b").charged == 100
    with place.open() as again:
        assert again.rolled_back is None
        assert [entry.request_id for entry in again.entries(1)] == ["r1", "r2"]


def test_a_commit_that_the_server_never_saw_charges_nothing(
    database, tmp_path, plan, asker
) -> None:
    """Its connection ends before it is sent: a look, behind the lock, finds that it was undone."""
    place = Place(tmp_path / "ledger", tmp_path / "elsewhere" / "head.json", database.url)
    with place.create(plan) as ledger:
        dialect = ledger._writer._writing.dialect
        commit = dialect.do_commit

        def cut_off(connection: object) -> None:
            dialect.do_commit = commit
            assert database.terminate() > 0
            commit(connection)

        dialect.do_commit = cut_off
        with pytest.raises(LedgerUnreachable):
            asker.settle(ledger, "r1", "a")
        assert ledger.budget().spent == 0
        assert asker.settle(ledger, "r1", "a").charged == 100
        assert asker.settle(ledger, "r1", "a").repeated


def test_a_commit_whose_connection_was_lost_stops_the_ledger(
    database, tmp_path, plan, asker
) -> None:
    """Nobody knows whether it happened, and nobody can look: only opening it again finds out."""
    place = Place(tmp_path / "ledger", tmp_path / "elsewhere" / "head.json", database.url)
    with place.create(plan) as ledger:
        dialect = ledger._writer._writing.dialect
        commit = dialect.do_commit

        def lost(connection: object) -> None:
            commit(connection)
            database.admit(False)
            database.terminate()
            raise dialect.loaded_dbapi.OperationalError("server closed the connection")

        dialect.do_commit = lost
        with pytest.raises(LedgerFault, match="open it again"):
            asker.settle(ledger, "r1", "a")
        database.admit(True)
        with pytest.raises(LedgerFault, match="open it again"):
            ledger.find("alice", "r1", asker.content)
    with place.open() as again:
        assert again.rolled_back is None
        assert asker.settle(again, "r1", "a", payload=b"other").payloads == [b"noisy a"]
        assert again.budget().spent == 100


@pytest.mark.parametrize("within_commit", [False, True])
def test_a_transaction_that_stood_still_too_long_charges_nothing(
    database, tmp_path, plan, asker, monkeypatch, within_commit: bool
) -> None:
    """The server ends its connection, and the ledger goes on with another one."""
    place = Place(tmp_path / "ledger", tmp_path / "elsewhere" / "head.json", database.url)
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
        stood: list[int] = []

        def stand_still(connection: Any) -> None:
            """Until the server has ended the session; nothing reads what it says of that."""
            if not stood:
                connection.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
                stood.append(select.select([connection.fileno()], [], [], 60)[0][0])

        if within_commit:
            dialect = ledger._writer._writing.dialect
            commit = dialect.do_commit

            def late(connection: Any) -> None:
                stand_still(connection.driver_connection)
                commit(connection)

            monkeypatch.setattr(dialect, "do_commit", late)
        else:

            @event.listens_for(ledger._engine, "after_cursor_execute")
            def happened(connection: Connection, _: object, statement: str, *more: object) -> None:
                if "INSERT INTO entries" in statement:
                    stand_still(connection.connection.driver_connection)

        with pytest.raises(LedgerUnreachable):
            asker.settle(ledger, "r2", "b")
        assert stood
        assert ledger.budget().spent == 100
        assert asker.settle(ledger, "r2", "b").charged == 100


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg.errors.IdleInTransactionSessionTimeout, True),
        (psycopg.errors.AdminShutdown, True),
        (psycopg.errors.ConnectionFailure, True),
        (psycopg.OperationalError, True),
        (psycopg.InterfaceError, True),
        (psycopg.InternalError, False),
        (psycopg.errors.InFailedSqlTransaction, False),
        (psycopg.errors.DiskFull, False),
        (psycopg.errors.UniqueViolation, False),
    ],
)
def test_what_a_server_says_decides_and_not_the_class_of_the_error(
    error: type[psycopg.Error], passes: bool
) -> None:
    engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    said = error("what it says")
    wrapped = DBAPIError.instance("SELECT 1", None, said, psycopg.Error, dialect=engine.dialect)
    assert isinstance(wrapped, DBAPIError)
    with pytest.raises(LedgerUnreachable if passes else type(wrapped)), uncharged(engine):
        raise wrapped


def test_a_host_that_vanishes_is_noticed_before_its_transaction_is_cut(
    database, tmp_path, plan
) -> None:
    place = Place(tmp_path / "ledger", tmp_path / "elsewhere" / "head.json", database.url)
    with place.create(plan) as ledger, ledger._engine.connect() as connection:
        told = connection.connection.driver_connection.info.get_parameters()
        idle, interval, count = (
            int(told[f"keepalives_{name}"]) for name in ("idle", "interval", "count")
        )
        cut = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one()
        assert idle + interval * count < int(cut.removesuffix("s"))
        assert int(told["tcp_user_timeout"]) == 1000 * (idle + interval * count)


@ON_SQLITE
def test_a_look_that_fails_refuses_whoever_looks_and_stops_nothing(
    ledger, asker, monkeypatch
) -> None:
    asker.settle(ledger, "r1", "a")

    def unreadable(*statement: object) -> None:
        raise sqlite3.OperationalError("disk I/O error\nand more lines")

    with monkeypatch.context() as patch:
        patch.setattr(ledger._engine.dialect, "do_execute", unreadable)
        for use in (
            ledger.budget,
            lambda: ledger.find("alice", "r1", asker.content),
            lambda: ledger.stored([asker.pending(ledger, "a").key]),
            lambda: ledger.check("alice", charge=0, draws=0),
        ):
            with pytest.raises(LedgerUnreadable, match="nothing was charged") as refusal:
                use()
            assert "(OperationalError: disk I/O error);" in str(refusal.value)
    ledger.require_usable()
    assert asker.settle(ledger, "r1", "a").repeated
    assert asker.settle(ledger, "r2", "b").charged == 100


@ON_SQLITE
def test_a_fault_is_told_in_one_line_without_the_statement(ledger, asker, monkeypatch) -> None:
    execute = ledger._engine.dialect.do_execute

    def full(cursor: object, statement: str, *more: object) -> None:
        if "INSERT INTO entries" in statement:
            raise sqlite3.OperationalError("database or disk is full\nDETAIL: of what it wrote")
        execute(cursor, statement, *more)

    monkeypatch.setattr(ledger._engine.dialect, "do_execute", full)
    for number in (1, 2):
        with pytest.raises(LedgerFault) as fault:
            asker.settle(ledger, f"r{number}", "a")
        said = str(fault.value)
        assert said.endswith(
            "has stopped (OperationalError: database or disk is full); open it again"
        )
