"""Opening: does the witness vouch for the ledger at hand, while replicas go on writing it?"""

from typing import Any

from sqlalchemy import Connection, Engine, Row, delete

from privacy.errors import LedgerMismatch
from privacy.ledger import lookup, store
from privacy.ledger.rollback import Chain
from privacy.ledger.witness import HashOf, Witness, read_heads
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
                witness.renew(head)
            if rolled_back is None and not alone:
                # The witness has seen them all, those of replicas that are about to tell it too.
                # Left here they would let an old witness pass: each replica that is started has a
                # new name.
                connection.execute(delete(store.writers))
                connection.commit()
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


def require_newest(
    connection: Connection, state: Row[Any], witness: Witness, seen: SignedHead, *, alone: bool
) -> None:
    """Raises LedgerMismatch when the ledger was served from elsewhere, or went back, since `seen`.

    A database server that was restored, or a standby that took over and lagged, has forgotten what
    was sent; a copy in another folder or another database has charged what this one does not
    know. state: the ledger's, locked, so that nobody commits meanwhile. seen: the last head that
    this process knows to be witnessed. alone: no other process can have witnessed more.
    """
    if state.schema_version != store.SCHEMA_VERSION:
        raise LedgerMismatch(
            f"the ledger was brought to schema version {state.schema_version} while it was served"
        )
    newest = witness.newest(seen.ledger_id, state.last_entry, _hashes(connection, state))
    if newest.entry < seen.entry or (alone and newest.entry_hash != seen.entry_hash):
        raise LedgerMismatch(
            f"the witness {witness.path} saw entry {newest.entry} last, and entry {seen.entry} "
            "before: it was changed while the ledger was served, or its storage does not honour "
            "locks between hosts"
        )


def _hashes(connection: Connection, state: Row[Any]) -> HashOf:
    """The chain's hashes. That of its last entry needs no look: `state` has it."""

    def hash_of(number: int) -> bytes | None:
        if number == state.last_entry:
            return bytes(state.last_hash)
        return lookup.recorded_hash(connection, number)

    return hash_of


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
        _hashes(connection, state),
    )
