"""A ledger's tables in a PostgreSQL database: several replicas write, one transaction at a time.

Each ledger has a schema of its own, named by its id, so that several share a database. The row of
`state` is the lock between replicas. Sessions are set up here: their search path is the ledger's
schema and nothing else, and a commit returns when it is on the server's disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.schema import CreateSchema, DropSchema

from privacy.errors import LedgerError, LedgerMismatch, LedgerMissing, LedgerUnreachable
from privacy.ledger.store import WRITING

_DRIVER: Final = "postgresql+psycopg"
_FORM: Final = "postgresql://USER@HOST:PORT/DATABASE"
_SCHEMA: Final = "schema"
_LONGEST_CONNECT_SECONDS: Final = 10
_ALIVE: Final = {
    # A server whose host vanished says nothing: 10 s of silence and 3 questions at 5 s are 25 s,
    # less than a transaction may stand still. One that works, or waits for a lock, has a system
    # that answers in its place.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # The same for what was sent to it and never confirmed, for which Linux waits 15 minutes.
    "tcp_user_timeout": 25_000,
}
_SECRETS: Final = ("password", "sslpassword")
_SESSION: Final = (
    # A replica that died with its host, or stands still, must not hold the chain for ever; and
    # the others wait longer than it may.
    ("idle_in_transaction_session_timeout", "30s"),
    ("lock_timeout", "90s"),
)


@dataclass(frozen=True)
class PostgresSchema:
    """One ledger's schema in a PostgreSQL database.

    url: of the database, with its password; it appears in no message.
    schema: the ledger's own, `ktan_` and its id.
    """

    url: URL = field(repr=False)
    schema: str

    @classmethod
    def new(cls, url: str, ledger_id: str) -> "PostgresSchema":
        """Where a new ledger goes. Raises LedgerMismatch for a URL of another kind."""
        return cls(_read_url(url), f"ktan_{ledger_id}")

    @classmethod
    def parse(cls, text: str) -> "PostgresSchema":
        """Reads what `to_text` wrote. Raises LedgerMismatch."""
        url = _read_url(text)
        schema = url.query.get(_SCHEMA)
        if not isinstance(schema, str) or not schema.isidentifier():
            raise LedgerMismatch(
                "the ledger's database URL names no schema; it ends in ?schema=ktan_ and the "
                "ledger's id"
            )
        return cls(url.difference_update_query([_SCHEMA]), schema)

    def to_text(self) -> str:
        """The URL with the schema, and with the password: for a file of mode 0600."""
        url = self.url.update_query_dict({_SCHEMA: self.schema})
        return url.render_as_string(hide_password=False)

    def __str__(self) -> str:
        return f"{self._place}, schema {self.schema}"

    @property
    def _place(self) -> str:
        host = self.url.host or "local socket"
        port = f":{self.url.port}" if self.url.port else ""
        return f"PostgreSQL database {self.url.database} at {host}{port}"

    def writable(self) -> Engine:
        """Transactions that write are READ COMMITTED, behind the row lock of `state`; all others
        see one snapshot and cannot write."""
        return self._engine(read_only=False)

    def readable(self) -> Engine:
        """Every transaction sees one snapshot and cannot write."""
        return self._engine(read_only=True)

    def create(self) -> None:
        """Makes the empty schema. Raises LedgerUnreachable."""
        with self._session(self.writable(), "no ledger was made") as connection:
            connection.execute(CreateSchema(self.schema))

    def drop(self) -> None:
        """Removes a schema that never became a ledger. Raises LedgerUnreachable."""
        with self._session(self.writable(), f"drop {self.schema} there") as connection:
            connection.execute(DropSchema(self.schema, cascade=True, if_exists=True))

    def require(self) -> None:
        """Raises LedgerMissing when the schema is not there, LedgerUnreachable when the server does
        not answer."""
        with self._session(self.readable(), "its ledger cannot be opened") as connection:
            found = connection.dialect.has_schema(connection, self.schema)
        if not found:
            raise LedgerMissing(f"{self} holds no ledger; name the database that it was opened in")

    @contextmanager
    def _session(self, engine: Engine, consequence: str) -> Iterator[Connection]:
        try:
            with engine.execution_options(**{WRITING: True}).begin() as connection:
                yield connection
        except DBAPIError as error:
            raise LedgerUnreachable(
                f"{self._place} cannot be used ({self._said(error)}); {consequence}"
            ) from None
        finally:
            engine.dispose()

    def _said(self, error: DBAPIError) -> str:
        """What the driver or the server says, unless it repeats a password."""
        said = " ".join(str(error.orig).split())
        values = (
            self.url.password,
            *(value for name in _SECRETS for value in self.url.normalized_query.get(name, ())),
        )
        if any(value and value in said for value in values):
            return "what its driver says repeats the password and is left out"
        return said

    def _engine(self, *, read_only: bool) -> Engine:
        try:
            engine = create_engine(
                self.url,
                max_overflow=-1,
                pool_pre_ping=True,
                hide_parameters=True,
                connect_args={
                    "connect_timeout": _LONGEST_CONNECT_SECONDS,
                    "application_name": "ktan ledger",
                    **_ALIVE,
                },
            )
        except ModuleNotFoundError:
            raise LedgerError(
                f"{self} needs the driver psycopg; install ktan with its extra: "
                "pip install 'ktan[postgres]'"
            ) from None

        @event.listens_for(engine, "connect")
        def connected(connection: Any, _: Any) -> None:
            connection.autocommit = True
            _set_up(connection.cursor(), self.schema)
            connection.autocommit = False

        @event.listens_for(engine, "begin")
        def begun(connection: Connection) -> None:
            driver: Any = connection.connection.dbapi_connection
            writing = connection.get_execution_options().get(WRITING, False) and not read_only
            # The driver's next BEGIN says both. None leaves a server that was made read-only so.
            driver.read_only = None if writing else True
            connection.dialect.set_isolation_level(
                driver, "READ COMMITTED" if writing else "REPEATABLE READ"
            )

        return engine


def _set_up(cursor: Any, schema: str) -> None:
    cursor.execute(f'SET search_path TO "{schema}"')
    for name, value in _SESSION:
        cursor.execute(f"SET {name} = '{value}'")
    cursor.execute(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'),"
        " current_setting('synchronous_commit')"
    )
    fsync, whole_pages, synchronous = cursor.fetchone()
    if (fsync, whole_pages) != ("on", "on"):
        raise LedgerMismatch(
            f"this PostgreSQL server runs with fsync = {fsync} and full_page_writes = "
            f"{whole_pages}: it may forget charges when the power fails; turn both on"
        )
    if synchronous not in ("on", "remote_apply"):
        cursor.execute("SET synchronous_commit = on")


def _read_url(text: str) -> URL:
    # Before an unescaped sign of a password ends it, and the rest is taken for a host's name.
    text = text.strip()
    before, at, after = text.partition("@")
    if "@" in after or (at and "?" in before):
        raise LedgerMismatch(
            "the database URL has an @ or a ? that may belong to a name or a password: write them "
            "there as %40 and %3F (and a colon as %3A, a slash as %2F, a percent sign as %25)"
        )
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The text may hold a password: it is not repeated.
        raise LedgerMismatch(f"the database URL cannot be read; give {_FORM}") from None
    if url.drivername not in ("postgresql", _DRIVER) or not url.database:
        raise LedgerMismatch(
            f"a ledger cannot be kept in {url.drivername}; give {_FORM}, or none for a SQLite file"
        )
    return url.set(drivername=_DRIVER)
