"""PostgreSQL of one's own, whose faults harm nobody else."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from benchmarks.faults.servers import wait_for

SERVER = os.environ.get(
    "KTAN_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)


@dataclass(frozen=True)
class OwnDatabase:
    """A database on a server that others use as well."""

    server: str
    name: str

    @property
    def url(self) -> str:
        """For a ledger's tables."""
        return make_url(self.server).set(database=self.name).render_as_string(hide_password=False)

    def terminate(self) -> int:
        """Ends every connection to this database, as an administrator may; how many there were."""
        with _connect(self.server) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [self.name],
            )
            return len(ended.fetchall())

    def admit(self, allowed: bool) -> None:
        """Whether it takes new connections; superusers get none either."""
        with _connect(self.server) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
                    sql.Identifier(self.name), sql.Literal(allowed)
                )
            )

    def waited_for(self) -> set[tuple[object, ...]]:
        """Transactions that do nothing while somebody waits for them: their session and begin."""
        with _connect(self.server) as connection:
            found = connection.execute(
                "SELECT still.pid, still.xact_start FROM pg_stat_activity AS waiting,"
                " unnest(pg_blocking_pids(waiting.pid)) AS holder"
                " JOIN pg_stat_activity AS still ON still.pid = holder"
                " WHERE waiting.datname = %s AND still.state LIKE 'idle in transaction%%'",
                [self.name],
            )
            return set(found.fetchall())


@contextlib.contextmanager
def own_database(server: str = SERVER) -> Iterator[OwnDatabase]:
    """A new database on this server, dropped at the end with all that is in it."""
    database = OwnDatabase(server, f"ktan_faults_{secrets.token_hex(4)}")
    name = sql.Identifier(database.name)
    with _connect(server) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    try:
        yield database
    finally:
        with _connect(server) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _connect(server: str) -> psycopg.Connection[tuple[object, ...]]:
    url = make_url(server)
    return psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password,
        dbname=url.database, connect_timeout=60, autocommit=True,
    )  # fmt: skip


@dataclass
class OwnServer:
    """A PostgreSQL server that nobody else uses."""

    programs: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of a database for a ledger's tables."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts it; on return it takes connections, and has recovered what it must."""
        self.process = subprocess.Popen(
            [
                *_as_nobody_special(), str(self.programs / "postgres"), "-D", str(self.folder),
                "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                "-c", f"unix_socket_directories={self.folder}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

        def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                _connect(self.url).close()
                return True
            return False

        wait_for(answers, "PostgreSQL did not start")

    def crash(self) -> None:
        """An immediate end: nothing is written any more, and the next start must recover."""
        assert self.process is not None
        postmaster = int((self.folder / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGQUIT)
        self.process.wait()
        self.process = None


@contextlib.contextmanager
def own_server() -> Iterator[OwnServer | None]:
    """A server with files of its own; None where PostgreSQL's programs are not here."""
    programs = _programs()
    if programs is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ktan-postgresql-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        subprocess.run(
            [
                *_as_nobody_special(), str(programs / "initdb"), "-D", folder, "-U", "postgres",
                "--auth=trust", "--no-sync",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        server = OwnServer(programs, Path(folder), port)
        server.start()
        try:
            yield server
        finally:
            if server.process is not None:
                server.crash()


def _as_nobody_special() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] * (
        os.geteuid() == 0
    )


def _programs() -> Path | None:
    """The newest of those that are installed."""
    places = [Path("/usr/lib/postgresql").glob("*/bin"), Path("/usr/local/pgsql").glob("bin")]
    found = sorted(place for places_of in places for place in places_of)
    return next((place for place in reversed(found) if (place / "initdb").exists()), None)
