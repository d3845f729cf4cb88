"""A group of requests that one durable transaction settles.

Requests are decided one after another, each against the ledger as the ones before it leave it, and
written together at the end: the rows in bulk, one debit, one signed head, one signature for all
receipts. A refused request has changed nothing by then.

A group first takes every request id and every answer for new, and leaves the judgement to the
tables' unique keys: where they find otherwise, or anything was refused, the group is decided again
by what the tables hold (`Unsure`). So the common case reads no row per answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row

from privacy.composition import DpSgdRun
from privacy.errors import BudgetExhausted, LedgerRolledBack
from privacy.key_history import SigningKey, endorse
from privacy.ledger import lookup, store
from privacy.ledger.additions import Additions, Unsure
from privacy.ledger.book import Book
from privacy.ledger.chain import Entry
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.request import Request
from privacy.ledger.settlement import Settlement
from privacy.ledger.standing import Account
from privacy.receipts import SignedHead

__all__ = ["Finish", "Group", "Unsure"]

Finish = Callable[[], Settlement]
"""What a request became; to be called once the group is durable."""


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
        self._additions = Additions(connection, state)
        self._accounts = lookup.read_accounts(
            connection, {item.client for item in requests}, book.opening.default_cap
        )
        self._changed: set[str] = set()
        self._places: set[int] = set()
        self._finished: dict[tuple[str, str], tuple[bytes, Finish]] = {}
        self._stored = lookup.find_all(connection, set(names)) if sure else {}
        wanted = {key for item in requests for key in (item.keys if sure else item.known)}
        found = store.read_answers(connection, list(wanted)) if wanted else {}
        self._payloads = {key: payload for key, (_, payload) in found.items()}

    @property
    def empty(self) -> bool:
        """True when nothing is to be written."""
        return self._additions.empty

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
        self._additions.totals.require(account, fresh.charge, fresh.draws)
        entry = self._additions.add(
            "answers",
            client=request.client,
            request_id=request.request_id,
            teacher_version=request.teacher_version,
            releases=len(request.keys),
            charge=fresh.charge,
            draws=fresh.draws,
            answers_digest=fresh.digest,
            details={"new": len(fresh.new)},
        )
        self._additions.add_answers(entry, fresh.new)
        self._payloads.update(fresh.new)
        self._change(account.plus(fresh.charge))
        return self._receipt(entry, request.content_digest, request.keys, len(fresh.new))

    def use_training_run(
        self, run: DpSgdRun, teacher_version: str, content_digest: bytes
    ) -> Finish:
        """Takes one unused reserved run that equals `run`. Raises BudgetExhausted when none is."""
        self.require_charging(0)
        used = lookup.used_places(self._connection) | self._places
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
        entry = self._additions.add(
            "training",
            request_id=lookup.training_request(teacher_version),
            teacher_version=teacher_version,
            details={"run": run.to_json()},
        )
        self._additions.add_training(free[0], entry)
        self._places.add(free[0])
        return self._receipt(entry, content_digest, (), 0)

    def set_cap(self, client: str, units: int | None) -> None:
        """Limits a client from now on; None returns it to the default."""
        self.require_charging(0)
        self._additions.add("cap", client=client, details={"cap": units})
        self._change(replace(self._account(client), cap=units))

    def hand_over(self, keys: LedgerKeys) -> SigningKey:
        """From this entry on `keys` sign. Only alone in its group: a head is signed by one key."""
        self.require_charging(0)
        if not self.empty:
            raise ValueError("a new signing key begins with a group of its own")
        book, number = self.book, self._additions.next_number
        key = endorse(book.keys.signing, book.opening.ledger_id, number, keys.public)
        self._additions.add("key", details=key.details())
        self.book = replace(book, keys=keys, history=book.history.followed_by(key))
        return key

    def write(self) -> SignedHead:
        """Signs and writes everything; the head after it. What it wrote is not committed yet.

        Raises Unsure when something that was taken for new is not, with rows already written.
        """
        changed = [self._accounts[client] for client in sorted(self._changed)]
        return self._additions.write(self.book, changed, sure=self.sure)

    def _account(self, client: str) -> Account:
        account = self._accounts.get(client)
        if account is None:
            default = self.book.opening.default_cap
            account = lookup.read_account(self._connection, client, default)
            self._accounts[client] = account
        return account

    def _change(self, account: Account) -> None:
        self._accounts[account.client] = account
        self._changed.add(account.client)

    def _receipt(
        self, entry: Entry, content_digest: bytes, keys: Sequence[bytes], new: int
    ) -> Finish:
        additions, payloads = self._additions, self._payloads
        place = additions.add_request(entry, content_digest, keys, new)

        def finish() -> Settlement:
            answers = [payloads[key] for key in keys]
            return Settlement(answers, additions.receipts[place], entry.charge, new)

        self._finished[entry.client, entry.request_id] = (content_digest, finish)
        return finish


def _described(run: DpSgdRun) -> str:
    return (
        f"sample rate {run.sample_rate:g}, noise multiplier {run.noise_multiplier:g}, "
        f"{run.steps} steps"
    )
