"""The public log, a piece at a time: a long one neither fills the memory nor holds up the writer.

Entries never change. So the head is read first, then the entries that it covers, batch by batch,
with no snapshot held open between them.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from sqlalchemy import Engine

from privacy.ledger import store
from privacy.ledger.accounts import Opening
from privacy.ledger.chain import entry_line, head_line, header_line
from privacy.ledger.reach import reading
from privacy.receipts import SignedHead

_BATCH: Final = 1000


def log_lines(engine: Engine, opening: Opening, head: SignedHead, first: int) -> Iterator[bytes]:
    """Header, entries from number `first` to the head's, and the head: canonical JSON lines."""
    yield header_line(opening.ledger_id, opening.public_key)
    while first <= head.entry:
        with reading(engine) as connection:
            rows = list(islice(store.read_entries(connection, first, _BATCH), _BATCH))
        for number, digest, body in rows:
            if number <= head.entry:
                yield entry_line(body, digest)
        if not rows:
            break
        first = rows[-1][0] + 1
    yield head_line(head)
