"""The SQL of a settlement. Built once: building a statement costs more than running it."""

from typing import Final

from sqlalchemy import bindparam, insert, select, update

from privacy.ledger.store import answers, clients, entries, requests, state

LOCK_STATE: Final = select(state).with_for_update()
DEBIT: Final = (
    update(state)
    .where(
        state.c.last_entry == bindparam("held_entry"),
        state.c.last_hash == bindparam("held_hash"),
        state.c.spent == bindparam("held_spent"),
        state.c.draws == bindparam("held_draws"),
        state.c.budget - state.c.spent >= bindparam("charge"),
        state.c.draws_budget - state.c.draws >= bindparam("used"),
    )
    .values(
        spent=bindparam("spent_after"),
        draws=bindparam("draws_after"),
        last_entry=bindparam("number"),
        last_hash=bindparam("hash"),
        head=bindparam("signed"),
    )
)
ACCOUNT: Final = select(clients.c.spent, clients.c.cap).where(clients.c.client == bindparam("name"))
ADD_CLIENT: Final = insert(clients)
ADD_SPENDING: Final = (
    update(clients)
    .where(clients.c.client == bindparam("name"))
    .values(spent=clients.c.spent + bindparam("charge"))
)
SET_CAP: Final = (
    update(clients).where(clients.c.client == bindparam("name")).values(cap=bindparam("units"))
)
ADD_ENTRY: Final = insert(entries)
ADD_ANSWERS: Final = insert(answers)
ADD_REQUEST: Final = insert(requests)
REQUEST: Final = select(requests).where(
    requests.c.client == bindparam("name"),
    requests.c.request_id == bindparam("id"),
)
