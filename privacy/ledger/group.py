"""A group of requests that one durable transaction settles.

Requests are decided one after another, each against the ledger as the ones before it leave it, and
written together at the end: the rows in bulk, one debit, one signed head, one signature for all
receipts. A refused request has changed nothing by then.

A group first takes every request id and every answer for new, and leaves the judgement to the
tables' unique keys: where they find otherwise, or anything was refused, the group is decided again
by what the tables hold (`Unsure`). So the common case reads no row per answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection, Row

from privacy.budget import spent_epsilon
from privacy.composition import DpSgdRun
from privacy.errors import BudgetExhausted, LedgerCorrupt, LedgerRolledBack
from privacy.key_history import KeyHistory, SigningKey, endorse
from privacy.ledger import lookup, store
from privacy.ledger.accounts import Opening
from privacy.ledger.chain import NOTHING_NEW, Entry, EntryKind, entry_hash
from privacy.ledger.clock import utc_now
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.lookup import Account, Totals
from privacy.ledger.request import Request
from privacy.ledger.settlement import Settlement
from privacy.ledger.statements import DEBIT, insert_rows
from privacy.receipts import Receipt, SignedHead, sign, sign_together, verify

Finish = Callable[[], Settlement]
"""What a request became; to be called once the group is durable."""


class Unsure(Exception):
    """The group took for new what may not be: decide it again with `sure`."""


@dataclass(frozen=True)
class Book:
    """What every group of one writing process goes by.

    keys: of which the signing key is the last of `history`. writer: its name in the table of
    writers. rolled_back: why nothing may be charged.
    """

    opening: Opening
    keys: LedgerKeys
    history: KeyHistory
    writer: str
    rolled_back: str | None

    def verify(self, signed: Receipt | SignedHead) -> None:
        """Returns for what this ledger's key of that entry signed; raises SignatureInvalid."""
        verify(signed, self.history.at(signed.entry))


@dataclass(frozen=True)
class Posting:
    """An entry before it has a place in the chain."""

    kind: EntryKind
    client: str = ""
    request_id: str = ""
    teacher_version: str = ""
    releases: int = 0
    charge: int = 0
    draws: int = 0
    answers_digest: bytes = NOTHING_NEW
    details: Mapping[str, Any] = field(default_factory=dict)


class Group:
    """The requests of one transaction, whose connection holds the ledger's `state`.

    book: as the group leaves it. names: (client, request id) of whatever will ask for `earlier`.
    sure: looks up what they and the requests name before any of them is decided.
    """

    def __init__(
        self,
        connection: Connection,
        book: Book,
        state: Row[Any],
        names: Sequence[tuple[str, str]],
        requests: Sequence[Request],
        *,
        sure: bool,
    ) -> None:
        self.sure = sure
        self.book = book
        self._connection = connection
        self._state = state
        self._totals = Totals.of(state)
        self._last: tuple[int, bytes] = (state.last_entry, state.last_hash)
        self._time: Final = utc_now()
        self._accounts: dict[str, Account] = {}
        self._changed: set[str] = set()
        self._finished: dict[tuple[str, str], tuple[bytes, Finish]] = {}
        self._entries: list[tuple[int, bytes, bytes]] = []
        self._answers: list[tuple[bytes, int, int, bytes]] = []
        self._requests: list[tuple[Any, ...]] = []
        self._training: dict[int, int] = {}
        self._unsigned: list[Receipt] = []
        self._receipts: list[Receipt] = []
        self._stored = lookup.find_all(connection, set(names)) if sure else {}
        wanted = {key for item in requests for key in (item.keys if sure else item.known)}
        found = store.read_answers(connection, list(wanted)) if wanted else {}
        self._payloads = {key: payload for key, (_, payload) in found.items()}

    @property
    def empty(self) -> bool:
        """True when nothing is to be written."""
        return not self._entries

    # Deciding: each method either raises and has changed nothing, or is done.

    def earlier(self, client: str, request_id: str, content_digest: bytes) -> Finish | None:
        """What this request was settled as before, in this group or in any other; or None.

        Raises RequestIdReused.
        """
        in_group = self._finished.get((client, request_id))
        if in_group is not None:
            digest, finish = in_group
            lookup.require_same(client, request_id, digest, content_digest)
            return lambda: replace(finish(), repeated=True)
        row = self._stored.get((client, request_id))
        if row is None:
            return None
        settled = lookup.settlement(self._connection, row, content_digest)
        return lambda: settled

    def require_charging(self, asked: int) -> None:
        """Raises LedgerRolledBack in a ledger that may be an old copy."""
        if self.book.rolled_back is not None:
            raise LedgerRolledBack(asked, self.book.rolled_back)

    def settle(self, request: Request) -> Finish:
        """Charges what is new in a request that was not settled before. Raises BudgetExhausted."""
        self.require_charging(request.all_new.charge)
        fresh = request.among(self._payloads)
        account = self._account(request.client)
        self._totals.require(account, fresh.charge, fresh.draws)
        entry = self._append(
            Posting(
                kind="answers",
                client=request.client,
                request_id=request.request_id,
                teacher_version=request.teacher_version,
                releases=len(request.keys),
                charge=fresh.charge,
                draws=fresh.draws,
                answers_digest=fresh.digest,
                details={"new": len(fresh.new)},
            )
        )
        for place, (key, payload) in enumerate(fresh.new.items()):
            self._answers.append((key, entry.number, place, payload))
        self._payloads.update(fresh.new)
        self._accounts[request.client] = replace(account, spent=account.spent + fresh.charge)
        self._changed.add(request.client)
        return self._receipt(entry, request.content_digest, request.keys, len(fresh.new))

    def use_training_run(
        self, run: DpSgdRun, teacher_version: str, content_digest: bytes
    ) -> Finish:
        """Takes one unused reserved run that equals `run`. Raises BudgetExhausted when none is."""
        self.require_charging(0)
        used = lookup.used_places(self._connection) | self._training.keys()
        plan = self.book.opening.plan
        places = [place for place, reserved in enumerate(plan.training) if reserved == run]
        free = [place for place in places if place not in used]
        if not free:
            raise BudgetExhausted(
                1,
                0,
                f"the plan's reservation for DP-SGD runs with {_described(run)}",
                f"the plan reserved {len(places)} of them; train with settings that it still has, "
                "nothing can be reserved after a ledger is opened",
            )
        entry = self._append(
            Posting(
                kind="training",
                request_id=lookup.training_request(teacher_version),
                teacher_version=teacher_version,
                details={"run": run.to_json()},
            )
        )
        self._training[free[0]] = entry.number
        return self._receipt(entry, content_digest, (), 0)

    def set_cap(self, client: str, units: int | None) -> None:
        """Limits a client from now on; None returns it to the default."""
        self.require_charging(0)
        self._append(Posting(kind="cap", client=client, details={"cap": units}))
        self._accounts[client] = replace(self._account(client), cap=units)
        self._changed.add(client)

    def hand_over(self, keys: LedgerKeys) -> SigningKey:
        """From this entry on `keys` sign. Only alone in its group: a head is signed by one key."""
        self.require_charging(0)
        if not self.empty:
            raise ValueError("a new signing key begins with a group of its own")
        book = self.book
        number = self._last[0] + 1
        key = endorse(book.keys.signing, book.opening.ledger_id, number, keys.public)
        self._append(Posting(kind="key", details=key.details()))
        self.book = replace(book, keys=keys, history=book.history.followed_by(key))
        return key

    # Writing

    def write(self) -> SignedHead:
        """Signs and writes everything; the head after it. What it wrote is not committed yet.

        Raises Unsure when something that was taken for new is not, with rows already written.
        """
        book = self.book
        number, digest = self._last
        spent, draws = self._totals.spent, self._totals.draws
        head = sign(SignedHead(book.opening.ledger_id, number, digest, spent), book.keys.signing)
        if self._unsigned:
            self._receipts = sign_together(self._unsigned, book.keys.signing)
        requests = [
            (*row, receipt.to_json_bytes())
            for row, receipt in zip(self._requests, self._receipts, strict=True)
        ]
        for table, rows in (
            (store.entries, self._entries),
            (store.requests, requests),
            (store.answers, self._answers),
            (store.training, list(self._training.items())),
        ):
            if insert_rows(self._connection, table, rows) != len(rows):
                if self.sure:
                    raise LedgerCorrupt("the ledger's tables changed under its writer")
                raise Unsure
        changed = [self._accounts[client] for client in sorted(self._changed)]
        accounts = [(account.client, account.spent, account.cap) for account in changed]
        insert_rows(self._connection, store.clients, accounts, replace=True)
        written = [(book.writer, self._state.last_entry + 1, number)]
        insert_rows(self._connection, store.writers, written, replace=True)
        # Guarded: correct even for a writer that did not hold the lock it believes to hold.
        debited = self._connection.execute(
            DEBIT,
            {
                "held_entry": self._state.last_entry,
                "held_hash": self._state.last_hash,
                "held_spent": self._state.spent,
                "held_draws": self._state.draws,
                "spent_after": spent,
                "draws_after": draws,
                "number": number,
                "hash": digest,
                "signed": head.to_json_bytes(),
            },
        )
        if debited.rowcount != 1:
            raise LedgerCorrupt("the ledger's state changed under its writer")
        return head

    def _account(self, client: str) -> Account:
        account = self._accounts.get(client)
        if account is None:
            default = self.book.opening.default_cap
            account = lookup.read_account(self._connection, client, default)
            self._accounts[client] = account
        return account

    def _append(self, posting: Posting) -> Entry:
        before, previous = self._last
        entry = Entry(
            number=before + 1,
            previous=previous,
            kind=posting.kind,
            time=self._time,
            client=posting.client,
            request_id=posting.request_id,
            teacher_version=posting.teacher_version,
            releases=posting.releases,
            charge=posting.charge,
            draws=posting.draws,
            spent_after=self._totals.spent + posting.charge,
            draws_after=self._totals.draws + posting.draws,
            answers_digest=posting.answers_digest,
            details=posting.details,
        )
        body = entry.canonical()
        self._last = (entry.number, entry_hash(body))
        self._entries.append((*self._last, body))
        self._totals = replace(self._totals, spent=entry.spent_after, draws=entry.draws_after)
        return entry

    def _receipt(
        self, entry: Entry, content_digest: bytes, keys: Sequence[bytes], new: int
    ) -> Finish:
        opening = self.book.opening
        place = len(self._unsigned)
        self._unsigned.append(
            Receipt(
                ledger_id=opening.ledger_id,
                entry=entry.number,
                entry_hash=self._last[1],
                client=entry.client,
                request_id=entry.request_id,
                charge=entry.charge,
                draws=entry.draws,
                spent=entry.spent_after,
                budget=opening.plan.answer_units,
                epsilon_spent=spent_epsilon(opening.plan, entry.spent_after),
                promise=opening.plan.promise,
            )
        )
        self._requests.append(
            (entry.client, entry.request_id, content_digest, entry.number, b"".join(keys), new)
        )

        def finish() -> Settlement:
            payloads = [self._payloads[key] for key in keys]
            return Settlement(payloads, self._receipts[place], entry.charge, new)

        self._finished[entry.client, entry.request_id] = (content_digest, finish)
        return finish


def _described(run: DpSgdRun) -> str:
    return (
        f"sample rate {run.sample_rate:g}, noise multiplier {run.noise_multiplier:g}, "
        f"{run.steps} steps"
    )
