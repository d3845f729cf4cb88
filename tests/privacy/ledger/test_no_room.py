"""A full disk or a read-only database: refused, nothing released, and sound once there is room.

On real file systems of a few megabytes where the test may mount one, as root does in a container;
`test_faults.py` does the same anywhere, with a database that may not grow.
"""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults, folder_lines, parse_log
from privacy.errors import LedgerError, LedgerFault
from privacy.ledger import Ledger
from privacy.ledger.backup import back_up
from privacy.ledger.database import Database
from privacy.ledger.migration import migrate
from privacy.ledger.postgresql import PostgresSchema
from privacy.receipts import Receipt
from tests.privacy.ledger.test_migration import unpack

ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("place", ["postgresql"], indirect=True)
ANSWER = 20_000
"""Bytes of an answer, which do not compress."""


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 4 MB, 2 of which a file takes that can be removed."""
    # Not under pytest's own folder, which no other user may enter: a database server must.
    folder = Path(tempfile.mkdtemp(prefix="ktan-small-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        folder.rmdir()
        pytest.skip("only who may mount a small file system can fill it up")
    (folder / "ballast").write_bytes(os.urandom(2 * 2**20))
    folder.chmod(0o711)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@contextmanager
def filled(disk: Path, room: int = 0) -> Iterator[None]:
    """Takes every byte of the disk but `room`, and gives them back at the end."""
    file = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        for size in (2**16, 2**9, 1):
            with suppress(OSError):
                while os.write(file, bytes(size)):
                    pass
        with pytest.raises(OSError, match="No space left"):
            os.write(file, b"x")
        os.truncate(file, os.fstat(file).st_size - room)
        yield
    finally:
        os.close(file)
        (disk / "filler").unlink()


class Outcome:
    """What concurrent callers got before the ledger stopped."""

    def __init__(self) -> None:
        self.sent: dict[str, list[bytes]] = {}
        self.receipts: list[Receipt] = []
        self.refused: list[str] = []


def ask_until_refused(ledger: Ledger, asker) -> Outcome:
    outcome = Outcome()

    def ask(worker: int) -> None:
        for number in range(1000):
            name = f"{worker}/{number}"
            try:
                settled = asker.settle(ledger, name, name, payload=os.urandom(ANSWER))
            except LedgerFault:
                outcome.refused.append(name)
                return
            outcome.sent[name] = settled.payloads
            outcome.receipts.append(settled.receipt)
        raise AssertionError("there was room for everything")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    return outcome


def require_sound(place, asker, outcome: Outcome) -> None:
    """After there is room again: what was sent stands, what was refused may be asked once more."""
    assert outcome.sent
    assert len(outcome.refused) == 4
    with place.open() as ledger:
        assert ledger.rolled_back is None
        for name, payloads in outcome.sent.items():
            assert asker.settle(ledger, name, name, payload=b"other").payloads == payloads
        for name in outcome.refused:
            first = asker.settle(ledger, name, name, payload=os.urandom(ANSWER)).payloads
            assert asker.settle(ledger, name, name, payload=b"other").payloads == first
        assert ledger.budget().spent == 100 * (len(outcome.sent) + 4)
    log = parse_log(str(place.folder), folder_lines(place.folder))
    held = [(place.folder, receipt) for receipt in outcome.receipts]
    report = check(log, receipts=held, tables=folder_faults(place.folder, log))
    assert report.violations == ()
    assert report.receipts == len(outcome.sent)


@ON_SQLITE
def test_a_full_disk_refuses_and_charges_nothing(place, plan, asker, disk) -> None:
    place.folder = disk / "ledger"
    with place.create(plan) as ledger:
        outcome = ask_until_refused(ledger, asker)
        with pytest.raises(LedgerFault, match="open it again"):
            asker.settle(ledger, "another", "another")
    (disk / "ballast").unlink()
    require_sound(place, asker, outcome)


@ON_POSTGRESQL
def test_a_full_tablespace_refuses_and_charges_nothing(place, plan, asker, disk) -> None:
    home = disk / "postgresql"
    home.mkdir()
    try:
        owner = pwd.getpwnam("postgres")
        os.chown(home, owner.pw_uid, owner.pw_gid)
    except (KeyError, PermissionError):
        pytest.skip("only a PostgreSQL on this host can be given a small disk")
    ledger = place.create(plan)
    server = Database.of(place.folder).server
    tablespace = f"small_{server.schema}"
    administrator = create_engine(place.database_url, isolation_level="AUTOCOMMIT")
    try:
        with administrator.connect() as connection:
            try:
                connection.exec_driver_sql(f"CREATE TABLESPACE {tablespace} LOCATION '{home}'")
            except DBAPIError as error:
                pytest.skip(f"PostgreSQL takes no small disk here: {error.orig}")
            for table in ("answers", "requests", "entries"):
                connection.exec_driver_sql(
                    f"ALTER TABLE {server.schema}.{table} SET TABLESPACE {tablespace}"
                )
        with ledger:
            outcome = ask_until_refused(ledger, asker)
        (disk / "ballast").unlink()
        require_sound(place, asker, outcome)
    finally:
        ledger.close()
        server.drop()
        with administrator.connect() as connection:
            connection.exec_driver_sql(f"DROP TABLESPACE IF EXISTS {tablespace}")
        administrator.dispose()


@ON_SQLITE
def test_the_witness_needs_no_more_room_than_it_took_at_first(place, plan, asker, disk) -> None:
    place.witness = disk / "head.json"
    with place.create(plan) as ledger, filled(disk):
        for number in range(3):
            asker.settle(ledger, f"r{number}", f"s{number}")
    with place.open() as again:
        assert again.rolled_back is None
        assert again.budget().spent == 300


def test_a_database_that_became_read_only_refuses_and_charges_nothing(ledger, place, asker) -> None:
    asker.settle(ledger, "r0", "s0")
    setting = (
        "PRAGMA query_only = ON"
        if place.database_url is None
        else "SET default_transaction_read_only = on"
    )

    @event.listens_for(ledger._engine, "connect")
    def read_only(connection, _) -> None:
        cursor = connection.cursor()
        cursor.execute(setting)
        connection.commit()

    ledger._engine.dispose()
    with pytest.raises(LedgerFault, match=r"(?i)read-?only"):
        asker.settle(ledger, "r1", "a")
    with pytest.raises(LedgerFault, match="open it again"):
        asker.settle(ledger, "r0", "s0")
    ledger.close()
    with place.open() as again:
        assert again.budget().spent == 100
        assert again.find("alice", "r1", asker.content) is None
        assert again.stored([asker.pending(again, "a").key]) == {}
        assert asker.settle(again, "r1", "a").charged == 100


@ON_POSTGRESQL
def test_a_server_that_lost_its_schema_releases_nothing(ledger, place, asker) -> None:
    asker.settle(ledger, "r0", "s0")
    schema: PostgresSchema = Database.of(place.folder).server
    schema.drop()
    with pytest.raises(LedgerFault):
        asker.settle(ledger, "r1", "a")


def test_a_backup_that_finds_no_room_leaves_nothing(ledger, place, asker, disk) -> None:
    for number in range(4):
        asker.settle(ledger, f"r{number}", f"s{number}", payload=os.urandom(2**20))
    with pytest.raises((LedgerError, OSError)):
        back_up(place.folder, disk / "backup")
    assert [path.name for path in disk.iterdir()] == ["ballast"]
    asker.settle(ledger, "r9", "s9")
    assert back_up(place.folder, place.folder.with_name("backup")) == ledger.head()


@pytest.mark.parametrize("room", [0, 50_000, 110_000])
def test_a_migration_that_finds_no_room_leaves_the_ledger_as_it_was(disk, tmp_path, room) -> None:
    """None at all, too little for the copy of the tables, enough for the copy alone."""
    old = unpack(disk / "ledger", tmp_path / "elsewhere" / "head.json")
    before = {path.name for path in old.folder.iterdir()}
    with filled(disk, room), pytest.raises((LedgerError, OSError)):
        migrate(old.folder)
    assert old.version() == 1
    left = {path.name for path in old.folder.iterdir()} - before
    assert left <= {"ledger.lock", *(["ledger.sqlite.version-1"] if room > 100_000 else [])}
    migrate(old.folder)
    with old.open() as ledger:
        assert ledger.budget().spent == 300


@ON_SQLITE
@pytest.mark.parametrize("room", [0, 30_000])
def test_a_ledger_that_finds_no_room_is_not_made(place, plan, disk, room) -> None:
    """None at all, and enough for the keys but not for the tables."""
    place.folder = disk / "ledger"
    with filled(disk, room), pytest.raises((LedgerError, OSError)):
        place.create(plan)
    assert [path.name for path in disk.iterdir()] == ["ballast"]
    assert not place.witness.exists()
    place.create(plan).close()
