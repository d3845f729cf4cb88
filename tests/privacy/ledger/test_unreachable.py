"""A database server that goes away: nothing is charged, and the ledger goes on when it is back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event

from benchmarks.faults.database import OwnDatabase, own_database
from privacy.errors import LedgerFault, LedgerUnreachable
from privacy.ledger import Ledger
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


@ON_SQLITE
def test_a_file_that_cannot_be_read_is_a_fault(ledger, place, asker) -> None:
    asker.settle(ledger, "r1", "a")
    ledger._engine.dispose()
    (place.folder / "ledger.sqlite").write_bytes(bytes(8192))
    for use in (ledger.budget, lambda: ledger.find("alice", "r1", asker.content)):
        with pytest.raises(LedgerFault, match="cannot be read"):
            use()
