"""Where a ledger's tables may be, what a session must be like, and what no message says."""

import stat
import sys

import pytest
from sqlalchemy import make_url

from privacy.errors import (
    LedgerError,
    LedgerExists,
    LedgerFault,
    LedgerMismatch,
    LedgerMissing,
    LedgerUnreachable,
    may_pass,
)
from privacy.ledger import Ledger, creation, postgresql, store
from privacy.ledger.database import URL_FILE, Database
from privacy.ledger.postgresql import PostgresSchema

ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("place", ["postgresql"], indirect=True)
PASSWORD = "a-secret-password"


def test_the_url_of_a_ledger_names_its_schema_and_reads_back() -> None:
    new = PostgresSchema.new(f"postgresql://me:{PASSWORD}@db:5433/ktan?sslmode=require", "ab" * 16)
    assert new.schema == "ktan_" + "ab" * 16
    assert new.url.drivername == "postgresql+psycopg"
    again = PostgresSchema.parse(new.to_text())
    assert again == new
    assert (again.url.password, again.url.query) == (PASSWORD, {"sslmode": "require"})


def test_a_password_is_in_no_text_but_the_file() -> None:
    server = PostgresSchema.new(f"postgresql://me:{PASSWORD}@db/ktan", "ab" * 16)
    assert PASSWORD in server.to_text()
    for text in (
        str(server),
        repr(server),
        repr(Database(None, server)),
        f"{Database(None, server)}",
    ):
        assert PASSWORD not in text
    assert str(server) == f"PostgreSQL database ktan at db, schema ktan_{'ab' * 16}"


@pytest.mark.parametrize("sign", ["@", "?", "@x/", "@x:5/", "@x?", "?x@", "@@"])
def test_a_password_with_an_unescaped_sign_is_refused_and_not_repeated(sign: str) -> None:
    """Where it ended the password, the rest would be taken for a host's or a database's name."""
    url = f"postgresql://me:first{sign}{PASSWORD}@db/ktan"
    with pytest.raises(LedgerMismatch, match="%40") as refusal:
        PostgresSchema.new(url, "ab" * 16)
    assert PASSWORD not in str(refusal.value)
    assert "first" not in str(refusal.value)


def test_a_password_with_escaped_signs_reads_back() -> None:
    new = PostgresSchema.new("postgresql://m%40e:a%40b%3Fc%2Fd%3Ae%25@db/ktan", "ab" * 16)
    assert (new.url.username, new.url.password) == ("m@e", "a@b?c/d:e%")
    assert PostgresSchema.parse(new.to_text()) == new


@pytest.mark.parametrize("place_of", ["me:{0}@/k?", "me@/k?password={0}&"])
def test_a_drivers_message_that_repeats_the_password_is_left_out(place_of: str) -> None:
    """Here because the same text is part of a socket's path."""
    url = "postgresql://" + place_of.format(PASSWORD) + f"host=/nowhere/{PASSWORD}"
    server = PostgresSchema.new(url, "ab" * 16)
    with pytest.raises(LedgerUnreachable, match="repeats the password and is left out") as fault:
        server.require()
    assert PASSWORD not in str(fault.value)


@ON_SQLITE
@pytest.mark.parametrize(
    "url",
    [
        f"mysql://me:{PASSWORD}@db/ktan",
        f"postgresql+asyncpg://me:{PASSWORD}@db/ktan",
        f"postgresql://me:{PASSWORD}@db",
        f"postgresql//me:{PASSWORD}@db/ktan",
        f"postgresql://me:{PASSWORD}@db:port/ktan",
        "",
    ],
)
def test_any_other_url_is_refused_without_repeating_it(place, plan, url) -> None:
    place.database_url = url
    with pytest.raises(LedgerMismatch, match="postgresql") as refusal:
        place.create(plan)
    assert PASSWORD not in str(refusal.value)
    assert not place.folder.exists()
    assert not place.witness.exists()


@ON_SQLITE
def test_a_damaged_url_file_is_not_taken_for_a_sqlite_ledger(place, plan) -> None:
    place.create(plan).close()
    for text in ("", "postgresql://me@db/ktan", "postgresql://me@db/ktan?schema=a;drop"):
        (place.folder / URL_FILE).write_text(text)
        with pytest.raises(LedgerMismatch):
            place.open()


@ON_SQLITE
def test_a_server_that_does_not_answer_makes_and_opens_nothing(place, plan) -> None:
    before, place.database_url = place.database_url, f"postgresql://me:{PASSWORD}@127.0.0.1:1/ktan"
    with pytest.raises(LedgerUnreachable, match="port 1 failed") as refusal:
        place.create(plan)
    assert PASSWORD not in str(refusal.value)
    assert list(place.folder.parent.iterdir()) == []
    assert not place.witness.exists()
    place.database_url = before
    place.create(plan).close()
    away = PostgresSchema.new(f"postgresql://me:{PASSWORD}@127.0.0.1:1/ktan", "ab" * 16)
    (place.folder / URL_FILE).write_text(away.to_text())
    for read_only in (True, False):
        with pytest.raises(LedgerUnreachable, match="ledger cannot be opened") as refusal:
            place.open(read_only=read_only)
        assert PASSWORD not in str(refusal.value)


@ON_POSTGRESQL
def test_several_ledgers_share_a_database(place, plan, asker, tmp_path, postgresql) -> None:
    with (
        place.create(plan) as one,
        Ledger.create(
            tmp_path / "other",
            dataset_id="x",
            plan=plan,
            witness=tmp_path / "w",
            database_url=place.database_url,
        ) as other,
    ):
        place.schemas.append(Database.of(tmp_path / "other").server)
        asker.settle(one, "r1", "a")
        assert other.budget().spent == 0
        assert other.find("alice", "r1", asker.content) is None
        asker.settle(other, "r1", "b", payload=b"another")
        assert one.find("alice", "r1", asker.content).payloads == [b"noisy a"]


@ON_POSTGRESQL
def test_a_failure_at_the_last_step_leaves_no_schema(place, plan, monkeypatch) -> None:
    made = []

    def fails(old: object, new: object) -> None:
        made.append(Database.of(old).server)
        made[0].require()
        raise OSError("the last step failed")

    with monkeypatch.context() as patch:
        patch.setattr(creation.os, "rename", fails)
        with pytest.raises(OSError, match="last step"):
            place.create(plan)
    with pytest.raises(LedgerMissing, match="holds no ledger"):
        made[0].require()


@ON_POSTGRESQL
def test_a_schema_that_was_dropped_is_a_missing_ledger(place, plan) -> None:
    place.create(plan).close()
    Database.of(place.folder).server.drop()
    with pytest.raises(LedgerMissing, match="holds no ledger"):
        place.open()


@ON_POSTGRESQL
def test_every_commit_waits_for_the_disk_whatever_the_server_prefers(place, plan) -> None:
    url = make_url(place.database_url)
    lax = url.update_query_dict({"options": "-c synchronous_commit=off"})
    place.database_url = lax.render_as_string(hide_password=False)
    with place.create(plan) as ledger:
        for options in ({}, {store.WRITING: True}):
            with ledger._engine.connect().execution_options(**options) as connection:
                settings = {
                    name: connection.exec_driver_sql(f"SHOW {name}").scalar()
                    for name in (
                        "synchronous_commit",
                        "transaction_isolation",
                        "transaction_read_only",
                        "search_path",
                    )
                }
            writing = bool(options)
            assert settings == {
                "synchronous_commit": "on",
                "transaction_isolation": "read committed" if writing else "repeatable read",
                "transaction_read_only": "off" if writing else "on",
                "search_path": Database.of(place.folder).server.schema,
            }


@pytest.mark.parametrize(("fsync", "pages"), [("off", "on"), ("on", "off")])
def test_a_server_that_may_forget_a_commit_is_refused(fsync: str, pages: str) -> None:
    class Cursor:
        def execute(self, statement: str) -> None:
            pass

        def fetchone(self) -> tuple[str, str, str]:
            return fsync, pages, "on"

    with pytest.raises(LedgerMismatch, match="may forget charges"):
        postgresql._set_up(Cursor(), "ktan_" + "ab" * 16)


@ON_POSTGRESQL
def test_the_folder_of_a_ledger_in_postgresql_is_as_secret_as_any(place, plan) -> None:
    place.create(plan).close()
    assert stat.S_IMODE((place.folder / URL_FILE).stat().st_mode) == 0o600
    with pytest.raises(LedgerExists):
        place.create(plan)


@ON_SQLITE
def test_without_the_driver_the_refusal_says_how_to_get_it(place, plan, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    place.database_url = "postgresql://me@127.0.0.1:1/ktan"
    with pytest.raises(LedgerError, match=r"pip install 'ktan\[postgres\]'") as refusal:
        place.create(plan)
    assert not may_pass(refusal.value)


def test_a_ledger_that_is_migrated_while_it_is_served_stops(ledger, place, asker) -> None:
    asker.settle(ledger, "r1", "a")
    newer = store.SCHEMA_VERSION + 1
    place.change(f"UPDATE state SET schema_version = {newer}")
    with pytest.raises(LedgerFault, match=f"schema version {newer} while it was served"):
        asker.settle(ledger, "r2", "b")
    place.change(f"UPDATE state SET schema_version = {store.SCHEMA_VERSION}")
    ledger.close()
    with place.open() as again:
        assert again.budget().spent == 100


@ON_POSTGRESQL
def test_a_connection_lost_between_requests_is_replaced(ledger, place, asker) -> None:
    asker.settle(ledger, "r1", "a")
    # One session from here on, which the next request will want.
    ledger._engine.dispose()
    with ledger._engine.connect() as connection:
        mine = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    terminate(place, mine)
    assert asker.settle(ledger, "r2", "b").charged == 100


@ON_POSTGRESQL
def test_a_connection_lost_within_a_request_charges_nothing(
    ledger, place, asker, monkeypatch
) -> None:
    commit = ledger._engine.dialect.do_commit

    def lost(connection) -> None:
        terminate(place, connection.info.backend_pid)
        commit(connection)

    with monkeypatch.context() as patch:
        patch.setattr(ledger._engine.dialect, "do_commit", lost)
        with pytest.raises(LedgerFault, match="open it again"):
            asker.settle(ledger, "r1", "a")
    ledger.close()
    with place.open() as again:
        assert again.budget().spent == 0
        assert again.find("alice", "r1", asker.content) is None
        assert asker.settle(again, "r1", "a").charged == 100


def terminate(place, process: int) -> None:
    """Has the server end one of its sessions; returns once it is gone."""
    engine = Database.of(place.folder).readable()
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT pg_terminate_backend({process}, 60000)").scalar()
    engine.dispose()


def test_a_server_that_is_away_is_named_on_one_line_without_a_schema_that_is_not_there() -> None:
    server = PostgresSchema.new("postgresql://me@127.0.0.1:1/ktan", "ab" * 16)
    with pytest.raises(LedgerUnreachable, match="no ledger was made") as creation:
        server.create()
    with pytest.raises(LedgerUnreachable, match="its ledger cannot be opened") as opening:
        server.require()
    for fault in (creation, opening):
        said = str(fault.value)
        assert said.startswith("PostgreSQL database ktan at 127.0.0.1:1 cannot be used (")
        assert said == " ".join(said.split())
        assert "schema" not in said
