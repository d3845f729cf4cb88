"""The ledger: the one place where privacy is spent.

    BEGIN → request seen before? → answers stored before? → covered?
          → debit, entry, answers, receipt → COMMIT (on disk) → witness (on disk) → return

What `settle` returns may be sent; before it returns, nothing may. A crash at any point either
charged nothing and released nothing, or charged once, and the same request id then returns the
same answers free. There is no refund.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from privacy import canonical_json
from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from privacy.errors import LedgerRolledBack
from privacy.key_history import KeyHistory, SigningKey
from privacy.ledger import creation, job, lookup, rotation, session, store
from privacy.ledger.chain import Entry
from privacy.ledger.durable import replace_durably
from privacy.ledger.export import log_lines
from privacy.ledger.request import Request
from privacy.ledger.session import Session
from privacy.ledger.settlement import BudgetState, PendingAnswer, Settlement
from privacy.ledger.standing import Account, Totals, budget_state
from privacy.ledger.training_charge import TrainingCharge
from privacy.receipts import Receipt, SignedHead

_LONGEST_NAME: Final = 256


class Ledger:
    """One data set's ledger, open in this process. Thread-safe; use it as a context manager.

    After a LedgerFault it refuses everything that charges or answers, until it is opened again.
    """

    def __init__(self, folder: Path, started: Session) -> None:
        """Not for callers: see `create` and `open`."""
        self.folder = folder
        self._engine = started.engine
        self._writer = started.writer
        self._opening = started.book.opening
        self._keys = started.book.keys
        self._rolled_back = started.book.rolled_back

    # Opening and closing

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        dataset_id: str,
        plan: BudgetPlan,
        witness: Path,
        default_cap: int | None = None,
        data: Path | None = None,
        files: Mapping[str, bytes] | None = None,
        database_url: str | None = None,
    ) -> Self:
        """Makes the one ledger of a data set in `folder`, and opens it.

        witness: file on other storage that keeps the last signed head.
        default_cap: units each client may spend unless `set_cap` says otherwise; None: the budget.
        data: the data's file or folder; the ledger's id is written beside it (binding.py).
        files: what an application keeps in the ledger's folder, name → content.
        database_url: of a PostgreSQL database for the tables; None: a SQLite file in the folder.

        Raises LedgerExists when folder, witness or data have a ledger, InvalidPlan,
        LedgerUnreachable.
        """
        creation.create(
            folder,
            dataset_id=dataset_id,
            plan=plan,
            witness=witness,
            default_cap=default_cap,
            data=data,
            files=files,
            database_url=database_url,
        )
        return cls.open(folder, witness=witness)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        witness: Path,
        read_only: bool = False,
        trusted_head: SignedHead | Receipt | None = None,
    ) -> Self:
        """Opens an existing ledger; never creates one.

        A ledger that `witness` cannot vouch for opens exhausted: `rolled_back` says why, stored
        answers are found, every new charge is refused. `trusted_head`, from a client or an
        auditor, vouches in place of a witness that is missing, damaged or old (witness.py).

        Raises LedgerMissing, LedgerUnreachable, LedgerInUse when another process writes it,
        LedgerMismatch for another schema, other keys or another ledger's witness, LedgerCorrupt.
        """
        started = session.start(folder, witness, read_only=read_only, trusted_head=trusted_head)
        return cls(folder, started)

    def close(self) -> None:
        """Waits for a settlement under way, then closes; closing twice does nothing."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What it is

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

    def sample_key(self, sample: bytes, teacher_version: str, settings: bytes) -> bytes:
        """Key of a stored answer, 32 bytes (HMAC-SHA256 under the ledger's secret).

        sample: canonical bytes of the sample, or their digest. settings: everything about the
        release but the sample, canonically (`TapRelease.settings_bytes`).
        """
        return self._keys.sample_key(sample, teacher_version, settings)

    def mac(self, chunks: Iterable[bytes]) -> str:
        """Keyed digest of the concatenated chunks, for a teacher's files; never a plain digest."""
        return self._keys.file_mac(chunks)

    # Charging

    def find(self, client: str, request_id: str, content_digest: bytes) -> Settlement | None:
        """What this request was settled as before; None when it was not.

        Raises RequestIdReused when it was settled with other content, LedgerFault; and
        LedgerRolledBack when it was settled after a ledger was opened that is not believed.
        """
        self._writer.require_usable()
        with self._engine.connect() as connection:
            settled = lookup.find(connection, client, request_id, content_digest)
        if settled is not None:
            self._writer.wait_until_witnessed(settled.receipt.entry)
        return settled

    def stored(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Key → payload of the answers among `keys` that are stored.

        Raises LedgerFault; LedgerRolledBack as `find`.
        """
        self._writer.require_usable()
        with self._engine.connect() as connection:
            found = store.read_answers(connection, list(set(keys)))
        if found:
            self._writer.wait_until_witnessed(max(entry for entry, _ in found.values()))
        return {key: payload for key, (_, payload) in found.items()}

    def check(self, client: str, *, charge: int, draws: int) -> None:
        """Raises what `settle` would raise for such a charge now, before any work is done for it.

        Reserves nothing: `settle` decides.
        """
        self._writer.require_usable()
        if self._rolled_back is not None:
            raise LedgerRolledBack(charge, self._rolled_back)
        with self._engine.connect() as connection:
            totals = Totals.of(lookup.read_state(connection))
            account = lookup.read_account(connection, client, self._opening.default_cap)
        totals.require(account, charge, draws)

    def settle(
        self,
        client: str,
        request_id: str,
        content_digest: bytes,
        pending: Sequence[PendingAnswer],
        teacher_version: str,
    ) -> Settlement:
        """Debits a request and makes its answers durable, in one transaction.

        pending: all answers of the request, in order. Where a key is stored already, the stored
        payload is returned and nothing charged for it; a key that occurs twice is charged once.
        A request id that was settled before returns the earlier settlement, whatever `pending`
        holds.

        Raises BudgetExhausted (LedgerRolledBack among them) or RequestIdReused, with nothing
        written; LedgerFault, after which the ledger must be opened again; ValueError for
        arguments that no caller may pass.
        """
        _require_name("client", client)
        _require_name("request_id", request_id)
        if not pending:
            raise ValueError("a request asks for at least one answer")
        request = Request.of(client, request_id, content_digest, pending, teacher_version)
        settled = self._writer.commit(job.settling(request))
        # Witnessed by now, but for a repeated request in a ledger that is not believed.
        self._writer.wait_until_witnessed(settled.receipt.entry)
        return settled

    def charge_training(self, run: DpSgdRun, teacher_version: str, weights: str) -> Receipt:
        """Uses one reserved DP-SGD run of the plan for this teacher; call it before a release.

        weights: `mac` of the finished weights, which are on disk already: they are all that the
        charge pays for. Called again for the same teacher, run and weights it returns the first
        receipt. Training anew, with fresh noise, is another version and another run.

        Raises BudgetExhausted when the plan has no such run left, RequestIdReused when the
        teacher was charged for another run or other weights, LedgerFault.
        """
        _require_name("teacher_version", teacher_version)
        charge = TrainingCharge(run, weights)
        return self._writer.commit(job.training(charge, teacher_version)).receipt

    def training_of(self, teacher_version: str) -> TrainingCharge | None:
        """What was charged for this teacher; None when nothing was. Raises LedgerCorrupt."""
        with self._engine.begin() as connection:
            return lookup.training_of(connection, teacher_version)

    def reserved_training(self) -> tuple[DpSgdRun, ...]:
        """The plan's DP-SGD runs that no teacher has used yet."""
        with self._engine.connect() as connection:
            used = lookup.used_places(connection)
        return tuple(run for place, run in enumerate(self.plan.training) if place not in used)

    def set_cap(self, client: str, units: int | None) -> None:
        """Limits one client beneath the global budget, from now on; None: the default cap.

        What it has spent stays spent: a cap below that leaves it nothing.
        """
        _require_name("client", client)
        if units is not None and (type(units) is not int or not 0 <= units < 2**62):
            raise ValueError(f"a cap is an integer from 0 to 2^62 units, not {units!r}")
        self._writer.commit(job.capping(client, units))

    def rotate_key(self) -> SigningKey:
        """Hands over to a fresh signing key, from the next entry on; the old one is destroyed.

        A crash at any point leaves either key in force, whole (rotation.py). The secret that finds
        stored answers stays: with another one they would all be drawn, and charged, again.

        Raises LedgerRolledBack with nothing changed, LedgerInUse, LedgerFault.
        """
        with rotation.alone(self.folder):
            keys = rotation.prepare(self.folder, self._keys)
            try:
                key = self._writer.commit(job.handing_over(keys))
            except LedgerRolledBack:
                rotation.settle(self.folder, self.public_key)
                raise
            rotation.settle(self.folder, key.public_key)
        return key

    # Reading

    def budget(self, client: str | None = None) -> BudgetState:
        """Where the ledger stands, for `client` or for nobody in particular."""
        with self._engine.connect() as connection:
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
        with self._engine.connect() as connection:
            for number, _, body in store.read_entries(connection, start):
                if number > last:
                    return
                yield Entry.from_json(canonical_json.decode(body))

    def log_lines(self, first: int = 0) -> Iterator[bytes]:
        """The public log as canonical JSON lines: header, entries from `first` on, signed head."""
        with self._engine.connect() as connection:
            head = SignedHead.from_json_bytes(lookup.read_state(connection).head)
        if self._rolled_back is not None:
            head = self._writer.head
        self._writer.wait_until_witnessed(head.entry)
        return log_lines(self._engine, self._opening, head, first)

    def export(self, path: Path) -> None:
        """Writes the public log to a file, for `privacy-audit ledger`."""
        replace_durably(path, b"".join(line + b"\n" for line in self.log_lines()))


def _require_name(what: str, value: str) -> None:
    if not (0 < len(value) <= _LONGEST_NAME and value.isprintable()):
        raise ValueError(f"{what} must be 1 to {_LONGEST_NAME} printable characters, not {value!r}")
