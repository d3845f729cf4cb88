"""What a failure of the database means where nothing was charged, for certain.

A database server that is away, or that ended a connection, is no fault of the ledger's: whoever
asks again later finds it as it was. Nor is a look that fails: it refuses whoever looks, no more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from privacy.errors import LedgerUnreachable, LedgerUnreadable

_PASSING: Final = ("08", "57", "25P03", "53300", "55P03")
"""How the SQLSTATE begins of what a server says of connections that are lost, ended from outside,
stood still for too long in a transaction, too many, or waited too long for the lock. A full disk
(53100) is none of these: somebody must make room."""


@contextmanager
def uncharged(engine: Engine) -> Iterator[None]:
    """Raises LedgerUnreachable in the place of what a server that is away raises.

    Around what comes before a commit is asked for, and what is known to have been undone.
    """
    try:
        yield
    except DBAPIError as error:
        if engine.dialect.name != "postgresql" or not _passes(error):
            raise
        raise LedgerUnreachable(
            "the ledger's database does not answer, nothing was charged; see that PostgreSQL "
            f"runs and is reached from here ({type(error.orig).__name__}), then ask again"
        ) from error


def _passes(error: DBAPIError) -> bool:
    # The driver's classes follow the state's first two digits: a connection that the server ended
    # for standing still (25P03) is an InternalError, beside much that is a fault.
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_PASSING)
    # No server was heard at all, or the driver itself gave up.
    return isinstance(error, OperationalError | InterfaceError)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection to look with. Raises LedgerUnreachable, and LedgerUnreadable where the tables
    cannot be read for any other reason."""
    try:
        with uncharged(engine), engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise LedgerUnreadable(
            f"the ledger's tables cannot be read, nothing was charged ({in_one_line(error)}); see "
            "to the disk or the database that holds them, then ask again"
        ) from error


def in_one_line(error: BaseException) -> str:
    """Its type and the first line of what it says; of a database's error the driver's own, without
    the statement."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(said).splitlines() or [""]
    return f"{type(said).__name__}: {lines[0]}"
