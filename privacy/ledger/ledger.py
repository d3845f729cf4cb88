"""The ledger: the one place where privacy is spent.

    BEGIN → request seen before? → answers stored before? → covered?
          → debit, entry, answers, receipt → COMMIT (on disk) → witness (on disk) → return

What `settle` returns may be sent; before it returns, nothing may. A crash at any point either
charged nothing and released nothing, or charged once, and the same request id then returns the
same answers free. There is no refund.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar, cast

from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from privacy.errors import (
    BudgetExhausted,
    LedgerRolledBack,
    LedgerUnreachable,
    RequestIdReused,
)
from privacy.key_history import SigningKey
from privacy.ledger import creation, job, lookup, rotation, session
from privacy.ledger.reach import reading
from privacy.ledger.reading import LedgerReader
from privacy.ledger.request import Request
from privacy.ledger.settlement import PendingAnswer, Settlement
from privacy.ledger.standing import Totals
from privacy.ledger.training_charge import TrainingCharge
from privacy.receipts import Receipt, SignedHead

_LONGEST_NAME: Final = 256
_Found = TypeVar("_Found")
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
        return self._keys.sample_key(sample, teacher_version, settings)

    def mac(self, chunks: Iterable[bytes]) -> str:
        """Keyed digest of the concatenated chunks, for a teacher's files; never a plain digest."""
        return self._keys.file_mac(chunks)

    def find(self, client: str, request_id: str, content_digest: bytes) -> Settlement | None:
        """What this request was settled as before; None when it was not.

        Raises RequestIdReused when it was settled with other content, LedgerFault; and
        LedgerRolledBack when it was settled after a ledger was opened that is not believed.
        """
        (found,) = self.find_all([(client, request_id, content_digest)])
        if isinstance(found, Exception):
            raise found
        return found

    def find_all(
        self, asked: Sequence[tuple[str, str, bytes]]
    ) -> list[Settlement | RequestIdReused | LedgerRolledBack | LedgerUnreachable | None]:
        """Of each (client, request id, content digest) what `find` returns, or its refusal."""
        self._writer.require_usable()
        with reading(self._engine) as connection:
            rows = lookup.find_all(connection, {(client, name) for client, name, _ in asked})
            found = [
                None
                if (row := rows.get((client, name))) is None
                else lookup.settlement_or_refusal(connection, row, digest)
                for client, name, digest in asked
            ]
        return self._witnessed(found)

    def stored(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Key → payload of the answers among `keys` that are stored.

        Raises LedgerFault; LedgerRolledBack as `find`.
        """
        (found,) = self.stored_all([keys])
        if isinstance(found, Exception):
            raise found
        return found

    def stored_all(
        self, asked: Sequence[Sequence[bytes]]
    ) -> list[dict[bytes, bytes] | LedgerRolledBack | LedgerUnreachable]:
        """For the keys of each request by themselves what `stored` returns, or its refusal."""
        self._writer.require_usable()
        with reading(self._engine) as connection:
            found = lookup.answers_among(connection, {key for keys in asked for key in keys})
        refusal = self._refusal_of_unseen([entry for entry, _ in found.values()])
        known = self._writer.head.entry
        looked: list[dict[bytes, bytes] | LedgerRolledBack | LedgerUnreachable] = []
        for keys in asked:
            own = {key: found[key] for key in keys if key in found}
            if refusal is not None and any(entry > known for entry, _ in own.values()):
                looked.append(refusal)
            else:
                looked.append({key: payload for key, (_, payload) in own.items()})
        return looked

    def check(self, client: str, *, charge: int, draws: int) -> None:
        """Raises what `settle` would raise for such a charge now, before any work is done for it.

        Reserves nothing: `settle` decides.
        """
        (refusal,) = self.check_all([(client, charge, draws)])
        if refusal is not None:
            raise refusal

    def check_all(self, asked: Sequence[tuple[str, int, int]]) -> list[BudgetExhausted | None]:
        """For each (client, charge, draws) by itself the refusal that `check` raises, or None."""
        self._writer.require_usable()
        if self._rolled_back is not None:
            return [LedgerRolledBack(charge, self._rolled_back) for _, charge, _ in asked]
        default = self._opening.default_cap
        with reading(self._engine) as connection:
            totals = Totals.of(lookup.read_state(connection))
            names = {client for client, _, _ in asked}
            accounts = lookup.read_accounts(connection, names, default)
        return [totals.refusal(accounts[client], charge, draws) for client, charge, draws in asked]

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
        seen = self._witnessed(outcomes)
        return cast("list[_Settled]", seen)

    def _witnessed(
        self, found: Sequence[_Found]
    ) -> list[_Found | LedgerRolledBack | LedgerUnreachable]:
        """The same once the witness has seen the settlements among them; a refusal in the place of
        one that it cannot be known to have seen."""
        entries = [item.receipt.entry for item in found if isinstance(item, Settlement)]
        refusal = self._refusal_of_unseen(entries)
        if refusal is None:
            return list(found)
        known = self._writer.head.entry
        return [
            refusal if isinstance(item, Settlement) and item.receipt.entry > known else item
            for item in found
        ]

    def _refusal_of_unseen(
        self, entries: Sequence[int]
    ) -> LedgerRolledBack | LedgerUnreachable | None:
        """None once the witness has seen these entries; or why those of them that are after our
        head are not sent."""
        try:
            if entries:
                self._writer.wait_until_witnessed(max(entries))
        except (LedgerRolledBack, LedgerUnreachable) as refusal:
            return refusal
        return None

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
