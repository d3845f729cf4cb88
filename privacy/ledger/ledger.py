"""The ledger: the one place where privacy is spent.

    BEGIN → request seen before? → answers stored before? → covered?
          → debit, entry, answers, receipt → COMMIT (on disk) → witness (on disk) → return

What `settle` returns may be sent; before it returns, nothing may. A crash at any point either
charged nothing and released nothing, or charged once, and the same request id then returns the
same answers free. There is no refund.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, cast

from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from privacy.errors import (
    BudgetExhausted,
    LedgerRolledBack,
    LedgerUnreachable,
    RequestIdReused,
)
from privacy.key_history import SigningKey
from privacy.ledger import creation, job, rotation, session
from privacy.ledger.looking import Look, witnessed
from privacy.ledger.reach import reading
from privacy.ledger.reading import LedgerReader
from privacy.ledger.request import Request
from privacy.ledger.settlement import PendingAnswer, Settlement
from privacy.ledger.training_charge import TrainingCharge
from privacy.receipts import Receipt, SignedHead

_LONGEST_NAME: Final = 256
_Settled = Settlement | BudgetExhausted | RequestIdReused | LedgerUnreachable


class Ledger(LedgerReader):
    """One data set's ledger, open in this process. Thread-safe; use it as a context manager.

    After a LedgerFault it refuses everything that charges or answers, until it is opened again.
    Any method raises LedgerUnreachable while its database server is away, and LedgerUnreadable
    where a look at the tables failed: nothing was charged, and the same call may be made again.
    """

    # Opening

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

    # Charging

    def sample_key(self, sample: bytes, teacher_version: str, settings: bytes) -> bytes:
        """Key of a stored answer, 32 bytes (HMAC-SHA256 under the ledger's secret).

        sample: canonical bytes of the sample, or their digest. settings: everything about the
        release but the sample, canonically (`TapRelease.settings_bytes`).
        """
        (key,) = self.sample_keys([sample], teacher_version, [settings])
        return key

    def sample_keys(
        self, samples: Sequence[bytes], teacher_version: str, settings: Sequence[bytes]
    ) -> list[bytes]:
        """`sample_key` of each sample under each of these settings, samples outermost."""
        return self._keys.sample_keys(samples, teacher_version, settings)

    def mac(self, chunks: Iterable[bytes]) -> str:
        """Keyed digest of the concatenated chunks, for a teacher's files; never a plain digest."""
        return self._keys.file_mac(chunks)

    def find(self, client: str, request_id: str, content_digest: bytes) -> Settlement | None:
        """What this request was settled as before; None when it was not.

        Raises RequestIdReused when it was settled with other content, LedgerFault; and
        LedgerRolledBack when it was settled after a ledger was opened that is not believed.
        """
        with self.look() as look:
            (found,) = look.find_all([(client, request_id, content_digest)])
        if isinstance(found, Exception):
            raise found
        return found

    def stored(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Key → payload of the answers among `keys` that are stored.

        Raises LedgerFault; LedgerRolledBack as `find`.
        """
        with self.look() as look:
            (found,) = look.stored_all([keys])
        if isinstance(found, Exception):
            raise found
        return found

    def check(self, client: str, *, charge: int, draws: int) -> None:
        """Raises what `settle` would raise for such a charge now, before any work is done for it.

        Reserves nothing: `settle` decides.
        """
        with self.look() as look:
            (refusal,) = look.check_all([(client, charge, draws)])
        if refusal is not None:
            raise refusal

    @contextmanager
    def look(self) -> Iterator[Look]:
        """Several questions about many requests, on one connection and about one state.

        Raises LedgerFault; LedgerUnreachable or LedgerUnreadable also where a question fails.
        """
        self._writer.require_usable()
        with reading(self._engine) as connection:
            yield Look(connection, self._writer)

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
        request = self.request(client, request_id, content_digest, pending, teacher_version)
        (outcome,) = self.settle_all([request])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @staticmethod
    def request(
        client: str,
        request_id: str,
        content_digest: bytes,
        pending: Sequence[PendingAnswer],
        teacher_version: str,
    ) -> Request:
        """What `settle` is asked for, made ready for `settle_all`. Raises ValueError."""
        _require_name("client", client)
        _require_name("request_id", request_id)
        if not pending:
            raise ValueError("a request asks for at least one answer")
        return Request.of(client, request_id, content_digest, pending, teacher_version)

    def settle_all(self, requests: Sequence[Request]) -> list[_Settled]:
        """Settles several requests, of any clients, in as few transactions as can be; see `settle`.

        A refused one has its refusal in its place and has charged nothing, and so has one whose
        transaction did not reach the database. Raises LedgerFault.
        """
        outcomes = self._writer.commit_all([job.settling(request) for request in requests])
        # Witnessed by now, but for a repeated request in a ledger that is not believed.
        seen = witnessed(self._writer, outcomes)
        return cast("list[_Settled]", seen)

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

        Raises LedgerRolledBack or LedgerUnreachable with nothing changed, LedgerInUse, LedgerFault.
        """
        with rotation.alone(self.folder):
            keys = rotation.prepare(self.folder, self._keys)
            try:
                key = self._writer.commit(job.handing_over(keys))
            except (LedgerRolledBack, LedgerUnreachable):
                rotation.settle(self.folder, self.public_key)
                raise
            rotation.settle(self.folder, key.public_key)
        return key


def _require_name(what: str, value: str) -> None:
    if not (0 < len(value) <= _LONGEST_NAME and value.isprintable()):
        raise ValueError(f"{what} must be 1 to {_LONGEST_NAME} printable characters, not {value!r}")
