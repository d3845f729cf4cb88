"""The one way to write: one transaction at a time, on disk and witnessed before it is told.

Whatever fails after a refusal could no longer be one stops the ledger: it is opened again, which
looks at what is on disk, before it charges or answers anything more.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, Row, select
from sqlalchemy.exc import DBAPIError

from privacy.errors import BudgetExhausted, LedgerFault, RequestIdReused
from privacy.ledger import store, transaction
from privacy.ledger.database import Database
from privacy.ledger.sqlite import WriterLock
from privacy.ledger.witness import Witness
from privacy.receipts import SignedHead

_REFUSALS: Final = (BudgetExhausted, RequestIdReused)

_Result = TypeVar("_Result")
Work = Callable[[Connection, Row[Any]], tuple[_Result, SignedHead | None]]
"""Body of a transaction: from the locked state to a result and the head after it, or None when it
wrote nothing."""


class Writer:
    """Serialises the threads of one process and commits what they bring.

    head: the last head that the witness has seen.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        witness: Witness,
        head: SignedHead,
        lock: WriterLock | None,
        *,
        read_only: bool,
    ) -> None:
        """lock: None for a ledger that is only read, and where several processes may write."""
        self.head = head
        self._folder = folder
        self._engine = engine
        self._witness = witness
        self._lock = lock
        self._read_only = read_only
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._fault: str | None = None

    def commit(self, work: Work[_Result]) -> _Result:
        """Runs `work` in one transaction; when it returns, that is on disk and witnessed.

        A refusal (BudgetExhausted, RequestIdReused) rolls back and leaves the ledger as it was.
        Raises LedgerFault for any other failure, and from then on.
        """
        with self._turn:
            self.require_usable()
            if self._read_only:
                raise LedgerFault(f"the ledger in {self._folder} was opened read-only")
            try:
                result, head = self._transact(work)
                if head is not None:
                    self._witness.write(head)
                    self.head = head
            except _REFUSALS:
                raise
            except BaseException as error:
                self._fault = f"{type(error).__name__}: {error}"
                if isinstance(error, Exception):
                    self.require_usable(error)
                raise
            return result

    def wait_until_witnessed(self, entry: int) -> None:
        """Returns once the witness has seen `entry`: what it has not seen must not be sent.

        A reader may see an entry that another thread has committed and not yet witnessed. Raises
        LedgerFault when it never will be.
        """
        if entry > self.head.entry:
            with self._turn:
                self.require_usable()

    def require_usable(self, cause: Exception | None = None) -> None:
        """Raises LedgerFault after a fault, after `close`, and in a forked child."""
        if self._fault is not None:
            raise LedgerFault(
                f"the ledger in {self._folder} has stopped ({self._fault}); open it again"
            ) from cause
        if os.getpid() != self._process:
            raise LedgerFault("a ledger does not survive a fork; open it in the child process")

    def close(self) -> None:
        """Waits for the transaction under way, then lets go of database and lock."""
        with self._turn:
            if self._fault is None:
                self._fault = "it was closed"
            self._engine.dispose()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _transact(self, work: Work[_Result]) -> tuple[_Result, SignedHead | None]:
        with self._engine.connect().execution_options(**{store.WRITING: True}) as connection:
            result, head = work(connection, transaction.lock_state(connection))
            if head is None:
                connection.rollback()
                return result, None
            try:
                connection.commit()
            except DBAPIError:
                # The outcome is unknown. This connection can only roll back now; a fresh one
                # sees whether the entry is there, and what it sees was on disk before.
                connection.invalidate()
                if not self._is_last(head):
                    raise
        return result, head

    def _is_last(self, head: SignedHead) -> bool:
        fresh = Database.of(self._folder).writable()
        try:
            with fresh.connect() as connection:
                found = connection.scalars(select(store.state.c.head)).one()
            return bool(found == head.to_json_bytes())
        finally:
            fresh.dispose()
