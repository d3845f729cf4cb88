"""What an open ledger says: what it is, where it stands, what was charged. Nothing here spends."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from privacy import canonical_json
from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from privacy.key_history import KeyHistory
from privacy.ledger import lookup, store
from privacy.ledger.chain import Entry
from privacy.ledger.durable import replace_durably
from privacy.ledger.export import log_lines
from privacy.ledger.reach import reading
from privacy.ledger.session import Session
from privacy.ledger.settlement import BudgetState
from privacy.ledger.standing import Account, Totals, budget_state
from privacy.ledger.training_charge import TrainingCharge
from privacy.receipts import SignedHead


class LedgerReader:
    """The reading half of `Ledger`, which adds how one is opened and how it is charged."""

    def __init__(self, folder: Path, started: Session) -> None:
        """Not for callers: see `Ledger.create` and `Ledger.open`."""
        self.folder = folder
        self._engine = started.engine
        self._writer = started.writer
        self._opening = started.book.opening
        self._keys = started.book.keys
        self._rolled_back = started.book.rolled_back

    def close(self) -> None:
        """Waits for a settlement under way, then closes; closing twice does nothing."""
        self._writer.close()

    def require_usable(self) -> None:
        """Raises LedgerFault after a fault, until it is opened again."""
        self._writer.require_usable()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def ledger_id(self) -> str:
        """128 random bits, in hexadecimal."""
        return self._opening.ledger_id

    @property
    def dataset_id(self) -> str:
        """The data set that it was opened for."""
        return self._opening.dataset_id

    @property
    def public_key(self) -> bytes:
        """Raw Ed25519 public key (32 bytes) that signs receipts and heads now."""
        return self.key_history.current

    @property
    def key_history(self) -> KeyHistory:
        """Every key that it ever signed with, each endorsed by the one before."""
        return self._writer.book.history

    @property
    def plan(self) -> BudgetPlan:
        """The plan that it was opened with, for ever."""
        return self._opening.plan

    @property
    def rolled_back(self) -> str | None:
        """Why it takes no charge, when its witness does not vouch for it."""
        return self._rolled_back

    def training_of(self, teacher_version: str) -> TrainingCharge | None:
        """What was charged for this teacher; None when nothing was. Raises LedgerCorrupt."""
        with reading(self._engine) as connection:
            return lookup.training_of(connection, teacher_version)

    def reserved_training(self) -> tuple[DpSgdRun, ...]:
        """The plan's DP-SGD runs that no teacher has used yet."""
        with reading(self._engine) as connection:
            used = lookup.used_places(connection)
        return tuple(run for place, run in enumerate(self.plan.training) if place not in used)

    def budget(self, client: str | None = None) -> BudgetState:
        """Where the ledger stands, for `client` or for nobody in particular."""
        with reading(self._engine) as connection:
            state = lookup.read_state(connection)
            account = (
                Account("")
                if client is None
                else lookup.read_account(connection, client, self._opening.default_cap)
            )
        return budget_state(self.plan, Totals.of(state), account, self._rolled_back)

    def head(self) -> SignedHead:
        """The signed head of the chain as it was last witnessed."""
        return self._writer.head

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """The entries from number `start` on, as they stood when the iteration began."""
        last = self._writer.head.entry
        with reading(self._engine) as connection:
            for number, _, body in store.read_entries(connection, start):
                if number > last:
                    return
                yield Entry.from_json(canonical_json.decode(body))

    def log_lines(self, first: int = 0) -> Iterator[bytes]:
        """The public log as canonical JSON lines: header, entries from `first` on, signed head."""
        with reading(self._engine) as connection:
            head = SignedHead.from_json_bytes(lookup.read_state(connection).head)
        if self._rolled_back is not None:
            head = self._writer.head
        self._writer.wait_until_witnessed(head.entry)
        return log_lines(self._engine, self._opening, head, first)

    def export(self, path: Path) -> None:
        """Writes the public log to a file, for `privacy-audit ledger`."""
        replace_durably(path, b"".join(line + b"\n" for line in self.log_lines()))
