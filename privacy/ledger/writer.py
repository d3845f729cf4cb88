"""The one way to write: on disk and witnessed before anybody is told.

Callers that come at once share one transaction. The first one leads: it takes whoever waits by
then, settles all of them, commits, advances the witness, and hands the lead to the first of those
who came meanwhile. So a lone caller never waits for company, and nobody waits for a clock.

Whatever fails after a refusal could no longer be one stops the ledger: it is opened again, which
looks at what is on disk, before it charges or answers anything more. A database server that goes
away stops nothing where it is certain that nothing was charged: whoever waited asks again.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError

from privacy.errors import (
    BudgetExhausted,
    LedgerFault,
    LedgerMismatch,
    LedgerRolledBack,
    LedgerUnreachable,
    RequestIdReused,
    SignatureInvalid,
)
from privacy.ledger import lookup, store
from privacy.ledger.book import Book
from privacy.ledger.database import Database
from privacy.ledger.group import Group, Unsure
from privacy.ledger.job import Job, nothing
from privacy.ledger.reach import in_one_line, uncharged
from privacy.ledger.sqlite import WriterLock
from privacy.ledger.vouching import require_newest
from privacy.ledger.witness import Witness
from privacy.receipts import SignedHead, verify

_REFUSALS: Final = (BudgetExhausted, RequestIdReused)
_UNCHARGED: Final = (*_REFUSALS, LedgerUnreachable)
_LARGEST_GROUP: Final = 256
_MOST_ANSWERS: Final = 16_384
"""Of a group, so that one commit stays short; a single larger request is a group by itself."""

_Result = TypeVar("_Result")


class Writer:
    """Gathers the callers of one process into transactions and commits these one after another.

    head: the last head that the witness is known to have seen. book: what it signs with.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        witness: Witness,
        head: SignedHead,
        book: Book,
        lock: WriterLock | None,
        *,
        read_only: bool,
    ) -> None:
        """lock: None for a ledger that is only read, and where several processes may write."""
        self.head = head
        self._folder = folder
        self._engine = engine
        self._writing = engine.execution_options(**{store.WRITING: True})
        self._witness = witness
        self.book = book
        self._lock = lock
        self._read_only = read_only
        self._process = os.getpid()
        self._fault: str | None = None
        # Under the mutex: who leads, and who waits for the next group. Nobody waits without a
        # leader.
        self._mutex = threading.Lock()
        self._idle = threading.Condition(self._mutex)
        self._leader: Job[Any] | None = None
        self._waiting: deque[Job[Any]] = deque()

    def commit(self, job: Job[_Result]) -> _Result:
        """Settles the job together with those of other callers; then it is on disk and witnessed.

        A refusal (BudgetExhausted, RequestIdReused) leaves the ledger as it was, and so does
        LedgerUnreachable. Raises LedgerFault for any other failure of the group, and from then on.
        """
        (outcome,) = self.commit_all([job])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def commit_all(self, jobs: Sequence[Job[_Result]]) -> list[_Result | Exception]:
        """Settles several jobs of one caller, in as few transactions as can be; see `commit`.

        What `commit` raises with nothing charged stands in the place of its job's result: the
        database may go away between one transaction and the next.
        """
        self.require_usable()
        if self._read_only:
            raise LedgerFault(f"the ledger in {self._folder} was opened read-only")
        try:
            with self._mutex:
                self._waiting.extend(jobs)
                if self._leader is None:
                    self._promote()
            # In the order in which they wait: a later one never leads before these are done.
            for job in jobs:
                job.wait()
                if not job.done:
                    self._lead(job)
        except BaseException as error:
            for job in jobs:
                if not job.done:
                    self._withdraw(job, error)
            if isinstance(error, Exception) and not isinstance(error, LedgerFault):
                raise self._stopped() from error
            raise
        outcomes: list[_Result | Exception] = []
        for job in jobs:
            if job.error is None:
                outcomes.append(cast("Callable[[], _Result]", job.finish)())
            elif isinstance(job.error, _UNCHARGED):
                outcomes.append(job.error)
            else:
                raise job.error
        return outcomes

    def wait_until_witnessed(self, entry: int) -> None:
        """Returns once the witness has seen `entry`: what it has not seen must not be sent.

        A reader may see an entry that another thread or another replica has committed and not yet
        witnessed. Raises LedgerFault when it cannot be; LedgerRolledBack in a ledger that its
        witness does not vouch for: what came after its opening, nobody here can know to be seen.
        """
        if entry <= self.head.entry or self._read_only:
            return
        if self.book.rolled_back is not None:
            raise LedgerRolledBack(
                0,
                f"entry {entry} was written by another replica after this one was opened, which "
                f"cannot tell whether it was witnessed ({self.book.rolled_back}); open it again",
            )
        self.commit(nothing())

    def require_usable(self) -> None:
        """Raises LedgerFault after a fault, after `close`, and in a forked child."""
        if self._fault is not None:
            raise self._stopped()
        if os.getpid() != self._process:
            raise LedgerFault("a ledger does not survive a fork; open it in the child process")

    def close(self) -> None:
        """Waits for the transaction under way, then lets go of database and lock."""
        if os.getpid() != self._process:
            return
        with self._mutex:
            if self._fault is None:
                self._fault = "it was closed"
            self._idle.wait_for(lambda: self._leader is None)
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # Leading

    def _promote(self) -> None:
        """Under the mutex: the first who waits leads; with nobody waiting, nobody leads."""
        self._leader = self._waiting[0] if self._waiting else None
        if self._leader is None:
            self._idle.notify_all()
        else:
            self._leader.wake()

    def _lead(self, job: Job[_Result]) -> None:
        """Settles one group, the leader's own job first among it, and passes the lead on."""
        with self._mutex:
            job.led.append(self._waiting.popleft())
        self.require_usable()
        # One server that does not answer costs whoever waits one attempt, not one each.
        self._gather(job)
        try:
            if not self._transact(job, sure=False):
                self._transact(job, sure=True)
        except LedgerUnreachable as error:
            # Nobody asked for a commit: all of them may ask again.
            for other in job.led:
                other.finish, other.error = None, LedgerUnreachable(*error.args)
                other.error.__cause__ = error
        self._release(job)

    def _gather(self, leader: Job[Any]) -> None:
        """Takes into the leader's group whoever has come by now."""
        with self._mutex:
            answers = sum(job.answers for job in leader.led)
            while self._waiting and len(leader.led) < _LARGEST_GROUP:
                answers += self._waiting[0].answers
                if leader.alone or self._waiting[0].alone or answers > _MOST_ANSWERS:
                    break
                leader.led.append(self._waiting.popleft())

    def _release(self, leader: Job[Any]) -> None:
        for job in leader.led:
            job.done = True
            if job is not leader:
                job.wake()
        with self._mutex:
            self._promote()
        # It leads itself: a cycle that would keep the whole group until it is collected.
        leader.led = []

    def _withdraw(self, job: Job[Any], error: BaseException) -> None:
        """A caller leaves by an exception: nobody may wait for it any more.

        A failure ends a caller that leads; an interrupt may also end one that waits, or that was
        made leader just now.
        """
        with self._mutex:
            waiting = job in self._waiting
            if waiting:
                self._waiting.remove(job)
            if self._leader is not job:
                return
            if not waiting and self._fault is None:
                self._fault = in_one_line(error)
        for other in job.led:
            if not other.done and other is not job:
                other.finish, other.error = None, self._stopped()
                other.error.__cause__ = error
        self._release(job)

    def _stopped(self) -> LedgerFault:
        return LedgerFault(
            f"the ledger in {self._folder} has stopped ({self._fault}); open it again"
        )

    # One transaction

    def _transact(self, leader: Job[Any], *, sure: bool) -> bool:
        """Settles a group in one transaction; False when it must be decided again, surely."""
        with ExitStack() as session:
            with uncharged(self._engine):
                connection = session.enter_context(self._writing.connect())
                state = lookup.lock_state(connection)
                self._require_our_key(state)
                if self.book.rolled_back is None:
                    alone = self._lock is not None
                    require_newest(connection, state, self._witness, self.head, alone=alone)
                # Again: who came while another replica held the lock is not left behind.
                self._gather(leader)
                jobs = leader.led
                requests = [job.request for job in jobs if job.request is not None]
                names = [job.name for job in jobs if job.name is not None]
                group = Group(connection, self.book, state, names, requests, sure=sure)
                try:
                    outcomes = [_decide(job, group) for job in jobs]
                    written = None if group.empty else group.write()
                except Unsure:
                    connection.rollback()
                    return False
                if written is None:
                    connection.rollback()
            if written is not None:
                self._commit(connection, written)
                self.book = group.book
                self._witness.verify = self.book.verify
            head = written or self._unseen(state)
        if head is not None:
            self._witness.advance(head)
            self.head = head
        for job, (finish, refusal) in zip(jobs, outcomes, strict=True):
            job.finish, job.error = finish, refusal
        return True

    def _require_our_key(self, state: Row[Any]) -> None:
        """Raises LedgerMismatch where the ledger was handed over to a key that is not ours.

        A head that this writer knows was signed, or verified, with its key; one that another
        replica wrote is verified before anything is built on it.
        """
        if state.last_hash == self.head.entry_hash or self.book.rolled_back is not None:
            return
        try:
            verify(SignedHead.from_json_bytes(state.head), self.book.keys.public)
        except (SignatureInvalid, ValueError):
            raise LedgerMismatch(
                f"the ledger in {self._folder} is signed with another key by now: where it was "
                "rotated on another host, copy signing-key.pem and public-key.pem from there"
            ) from None

    def _commit(self, connection: Connection, head: SignedHead) -> None:
        try:
            connection.commit()
        except DBAPIError as error:
            # The outcome is unknown. This connection can only roll back now; a fresh one sees
            # whether the entry is there, and what it sees is on disk. It takes the lock first: the
            # commit may still be under way on a server.
            connection.invalidate()
            fresh = Database.of(self._folder).writable()
            try:
                with fresh.connect().execution_options(**{store.WRITING: True}) as second:
                    lookup.lock_state(second)
                    found = lookup.recorded_hash(second, head.entry)
            finally:
                fresh.dispose()
            if found != head.entry_hash:
                # Not there, and its lock is free: it was undone.
                with uncharged(self._engine):
                    raise error

    def _unseen(self, state: Row[Any]) -> SignedHead | None:
        """The head of what another replica committed and perhaps died before witnessing it."""
        if state.last_entry <= self.head.entry or self.book.rolled_back is not None:
            return None
        head = SignedHead.from_json_bytes(state.head)
        self._witness.verify(head)
        return head


def _decide(job: Job[Any], group: Group) -> tuple[Callable[[], Any] | None, Exception | None]:
    """How to get the job's result, or why it is refused; Unsure while the refusal may be wrong."""
    try:
        return job.decide(group), None
    except _REFUSALS as refusal:
        if not group.sure:
            raise Unsure from None
        return None, refusal
