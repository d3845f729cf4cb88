"""What happens inside the ledger's one durable transaction.

Every function here runs between BEGIN and COMMIT on the chain's single writer, and either returns
what is to be committed or raises without having promised anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from privacy import canonical_json
from privacy.budget import spent_epsilon
from privacy.composition import DpSgdRun
from privacy.errors import BudgetExhausted, LedgerCorrupt, RequestIdReused
from privacy.ledger import statements, store
from privacy.ledger.accounts import Opening
from privacy.ledger.chain import NOTHING_NEW, Entry, EntryKind, answers_digest
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.settlement import PendingAnswer, Settlement
from privacy.receipts import Receipt, SignedHead, sign


@dataclass(frozen=True)
class Account:
    """A client's line: units spent, and its cap (None: only the global budget limits)."""

    client: str
    spent: int
    cap: int | None


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
    details: Mapping[str, Any] | None = None


def lock_state(connection: Connection) -> Row[Any]:
    """The ledger's state, held against every other writer until the transaction ends."""
    return connection.execute(statements.LOCK_STATE).one()


def read_account(connection: Connection, opening: Opening, client: str) -> Account:
    """The client's line; one that never spent has spent nothing."""
    row = connection.execute(statements.ACCOUNT, {"name": client}).one_or_none()
    spent, cap = row if row is not None else (0, None)
    return Account(client, spent, opening.default_cap if cap is None else cap)


def require_budget(state: Row[Any], account: Account, charge: int, draws: int) -> None:
    """Raises BudgetExhausted naming the limit that does not cover this charge."""
    left = state.budget - state.spent
    if charge > left:
        remedy = "ask for fewer new samples" if left else "no new sample can be answered any more"
        raise BudgetExhausted(charge, left, "the ledger's answering budget", remedy)
    if charge and account.cap is not None and charge > account.cap - account.spent:
        raise BudgetExhausted(
            charge,
            max(0, account.cap - account.spent),
            f"the cap of client {account.client!r}",
            "ask for fewer new samples, or have the custodian raise the cap",
        )
    if draws > state.draws_budget - state.draws:
        raise BudgetExhausted(
            draws,
            state.draws_budget - state.draws,
            "the ledger's limit on noise draws",
            "ask for fewer new samples",
        )


def append(
    connection: Connection, state: Row[Any], keys: LedgerKeys, opening: Opening, posting: Posting
) -> tuple[Entry, SignedHead]:
    """Debits, links and writes the next entry, with the signed head after it."""
    entry = Entry(
        number=state.last_entry + 1,
        previous=state.last_hash,
        kind=posting.kind,
        time=utc_now(),
        client=posting.client,
        request_id=posting.request_id,
        teacher_version=posting.teacher_version,
        releases=posting.releases,
        charge=posting.charge,
        draws=posting.draws,
        spent_after=state.spent + posting.charge,
        draws_after=state.draws + posting.draws,
        answers_digest=posting.answers_digest,
        details=posting.details or {},
    )
    head = sign(
        SignedHead(opening.ledger_id, entry.number, entry.hash(), entry.spent_after), keys.signing
    )
    # Guarded: correct even for a writer that did not hold the lock it believes to hold.
    debited = connection.execute(
        statements.DEBIT,
        {
            "held_entry": state.last_entry,
            "held_hash": state.last_hash,
            "held_spent": state.spent,
            "held_draws": state.draws,
            "charge": posting.charge,
            "used": posting.draws,
            "spent_after": entry.spent_after,
            "draws_after": entry.draws_after,
            "number": entry.number,
            "hash": head.entry_hash,
            "signed": head.to_json_bytes(),
        },
    )
    if debited.rowcount != 1:
        raise LedgerCorrupt("the ledger's state changed under its writer")
    connection.execute(
        statements.ADD_ENTRY,
        {"number": entry.number, "hash": head.entry_hash, "body": entry.canonical()},
    )
    return entry, head


def settle(
    connection: Connection,
    state: Row[Any],
    keys: LedgerKeys,
    opening: Opening,
    request: tuple[str, str, bytes],
    pending: Sequence[PendingAnswer],
    teacher_version: str,
) -> tuple[Settlement, SignedHead]:
    """Stores what is new among `pending`, debits it, and writes entry and receipt."""
    client, request_id, content_digest = request
    stored = store.read_answers(connection, list({answer.key for answer in pending}))
    payloads = {key: payload for key, (_, payload) in stored.items()}
    new: dict[bytes, PendingAnswer] = {}
    for answer in pending:
        if answer.key not in payloads:
            payloads[answer.key] = answer.payload
            new[answer.key] = answer
    charge = sum(answer.charge for answer in new.values())
    draws = sum(answer.draws for answer in new.values())
    account = read_account(connection, opening, client)
    require_budget(state, account, charge, draws)
    posting = Posting(
        kind="answers",
        client=client,
        request_id=request_id,
        teacher_version=teacher_version,
        releases=len(pending),
        charge=charge,
        draws=draws,
        answers_digest=answers_digest((key, answer.payload) for key, answer in new.items()),
        details={"new": len(new)},
    )
    entry, head = append(connection, state, keys, opening, posting)
    if new:
        connection.execute(
            statements.ADD_ANSWERS,
            [
                {"key": key, "entry": entry.number, "place": place, "payload": answer.payload}
                for place, (key, answer) in enumerate(new.items())
            ],
        )
    _add_spending(connection, client, charge)
    receipt = write_receipt(
        connection,
        keys,
        opening,
        entry,
        head,
        content_digest=content_digest,
        keys_asked=b"".join(answer.key for answer in pending),
        new=len(new),
    )
    settled = [payloads[answer.key] for answer in pending]
    return Settlement(settled, receipt, charge, len(new)), head


def training_of(connection: Connection, teacher_version: str) -> DpSgdRun | None:
    """The run of the training entry of this teacher; None when there is none."""
    body = connection.scalar(
        select(store.entries.c.body)
        .join(store.requests, store.requests.c.entry == store.entries.c.number)
        .where(
            store.requests.c.client == "",
            store.requests.c.request_id == training_request(teacher_version),
        )
    )
    if body is None:
        return None
    return DpSgdRun.from_json(Entry.from_json(canonical_json.decode(body)).details["run"])


def training_request(teacher_version: str) -> str:
    """The request id of a teacher's training: a version is one training."""
    return f"training:{teacher_version}"


def use_training_run(
    connection: Connection,
    state: Row[Any],
    keys: LedgerKeys,
    opening: Opening,
    run: DpSgdRun,
    request: tuple[str, str, bytes],
    teacher_version: str,
) -> tuple[Receipt, SignedHead]:
    """Takes one unused reserved run that equals `run`; raises BudgetExhausted when none is left."""
    used = set(connection.scalars(select(store.training.c.place)))
    places = [n for n, reserved in enumerate(opening.plan.training) if reserved == run]
    free = [place for place in places if place not in used]
    if not free:
        raise BudgetExhausted(
            1,
            0,
            f"the plan's reservation for DP-SGD runs with {_described(run)}",
            f"the plan reserved {len(places)} of them; train with settings that it still has, "
            "nothing can be reserved after a ledger is opened",
        )
    client, request_id, content_digest = request
    posting = Posting(
        kind="training",
        client=client,
        request_id=request_id,
        teacher_version=teacher_version,
        details={"run": run.to_json()},
    )
    entry, head = append(connection, state, keys, opening, posting)
    connection.execute(insert(store.training).values(place=free[0], entry=entry.number))
    receipt = write_receipt(
        connection,
        keys,
        opening,
        entry,
        head,
        content_digest=content_digest,
        keys_asked=b"",
        new=0,
    )
    return receipt, head


def write_receipt(
    connection: Connection,
    keys: LedgerKeys,
    opening: Opening,
    entry: Entry,
    head: SignedHead,
    *,
    content_digest: bytes,
    keys_asked: bytes,
    new: int,
) -> Receipt:
    """Signs the receipt of an entry and records the request, so that it is never charged again."""
    receipt = sign(
        Receipt(
            ledger_id=opening.ledger_id,
            entry=entry.number,
            entry_hash=head.entry_hash,
            client=entry.client,
            request_id=entry.request_id,
            charge=entry.charge,
            draws=entry.draws,
            spent=entry.spent_after,
            budget=opening.plan.answer_units,
            epsilon_spent=spent_epsilon(opening.plan, entry.spent_after),
            promise=opening.plan.promise,
        ),
        keys.signing,
    )
    connection.execute(
        statements.ADD_REQUEST,
        {
            "client": entry.client,
            "request_id": entry.request_id,
            "content_digest": content_digest,
            "entry": entry.number,
            "keys": keys_asked,
            "new": new,
            "receipt": receipt.to_json_bytes(),
        },
    )
    return receipt


def find(
    connection: Connection, client: str, request_id: str, content_digest: bytes
) -> Settlement | None:
    """The settlement of a request that was accepted before, None when there is none.

    Raises RequestIdReused when it was accepted with other content.
    """
    row = connection.execute(statements.REQUEST, {"name": client, "id": request_id}).one_or_none()
    if row is None:
        return None
    if row.content_digest != content_digest:
        raise RequestIdReused(
            f"request id {request_id} of client {client!r} was used for other content; send a "
            "fresh id with a fresh request"
        )
    asked = [row.keys[start : start + 32] for start in range(0, len(row.keys), 32)]
    stored = store.read_answers(connection, list(set(asked)))
    if any(key not in stored for key in asked):
        raise LedgerCorrupt(
            f"an answer of entry {row.entry} is not stored any more; it cannot be drawn again"
        )
    receipt = Receipt.from_json_bytes(row.receipt)
    payloads = [stored[key][1] for key in asked]
    return Settlement(payloads, receipt, receipt.charge, row.new, repeated=True)


def write_cap(connection: Connection, client: str, cap: int | None) -> None:
    """Sets a client's own cap; None returns it to the default."""
    changed = connection.execute(statements.SET_CAP, {"name": client, "units": cap})
    if changed.rowcount == 0:
        connection.execute(statements.ADD_CLIENT, {"client": client, "spent": 0, "cap": cap})


def utc_now() -> str:
    """The time of an entry: UTC, ISO 8601, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _described(run: DpSgdRun) -> str:
    return (
        f"sample rate {run.sample_rate:g}, noise multiplier {run.noise_multiplier:g}, "
        f"{run.steps} steps"
    )


def _add_spending(connection: Connection, client: str, charge: int) -> None:
    changed = connection.execute(statements.ADD_SPENDING, {"name": client, "charge": charge})
    if changed.rowcount == 0:
        connection.execute(statements.ADD_CLIENT, {"client": client, "spent": charge, "cap": None})
