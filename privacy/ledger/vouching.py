"""Opening: does the witness vouch for the ledger at hand, while replicas go on writing it?"""

from typing import Any

from sqlalchemy import Connection, Engine, Row

from privacy.errors import LedgerMismatch
from privacy.ledger import lookup, store
from privacy.ledger.rollback import Chain
from privacy.ledger.witness import Witness, read_heads
from privacy.receipts import Receipt, SignedHead


def vouch(
    engine: Engine,
    witness: Witness,
    ledger_id: str,
    trusted: SignedHead | Receipt | None,
    *,
    read_only: bool,
    alone: bool,
) -> tuple[SignedHead, str | None]:
    """The ledger's head, and why it is not believed to be the newest; None when it is.

    alone: no other process can write. Who is to write then advances the witness to that head.
    Raises LedgerMismatch when witness or trusted head belong to another ledger.
    """
    if not read_only:
        options = {} if alone else {store.WRITING: True}
        with engine.connect().execution_options(**options) as connection:
            # Against other replicas: nobody commits while the two are compared.
            state = lookup.read_state(connection) if alone else lookup.lock_state(connection)
            head = SignedHead.from_json_bytes(state.head)
            rolled_back = witness.rollback(_chain(connection, ledger_id, state), trusted)
            if rolled_back is None and witness.content() is None:
                # A trusted head stood in for it.
                Witness.create(witness.path, head)
            elif rolled_back is None:
                witness.advance(head)
        return head, rolled_back
    # Who only reads cannot hold up the writers, who may move the witness past what was read. It
    # is the newest all the same when it has what the witness saw before.
    before = witness.content()
    with engine.connect() as connection:
        state = lookup.read_state(connection)
        chain = _chain(connection, ledger_id, state)
        rolled_back = witness.rollback(chain, trusted)
        if rolled_back is not None and witness.content() != before and _has(chain, before):
            rolled_back = None
    return SignedHead.from_json_bytes(state.head), rolled_back


def require_newest(state: Row[Any], witness: Witness, seen: int, *, alone: bool) -> None:
    """Raises LedgerMismatch when the tables went back behind the witness while they were served.

    A database server that was restored, or a standby that took over and lagged, has forgotten what
    was sent. state: the ledger's, locked, so that nobody commits meanwhile. seen: the last entry
    that this process knows to be witnessed. alone: no other process can have witnessed more.
    """
    if state.schema_version != store.SCHEMA_VERSION:
        raise LedgerMismatch(
            f"the ledger was brought to schema version {state.schema_version} while it was served"
        )
    if not alone:
        heads = read_heads(witness.path.read_bytes())
        seen = max(seen, heads[0].entry)
    if state.last_entry < seen:
        raise LedgerMismatch(
            f"the witness saw entry {seen}, the ledger ends at entry {state.last_entry}: its "
            "database was replaced by an older copy while it was served"
        )


def _has(chain: Chain, content: bytes | None) -> bool:
    """Whether the chain has the entry that the witness saw last, by the content of its file."""
    try:
        newest = read_heads(content or b"")[0]
    except ValueError:
        return False
    return chain.hash_of(newest.entry) == newest.entry_hash


def _chain(connection: Connection, ledger_id: str, state: Row[Any]) -> Chain:
    return Chain(
        ledger_id,
        state.last_entry,
        lookup.last_groups(connection),
        lambda number: lookup.recorded_hash(connection, number),
    )
