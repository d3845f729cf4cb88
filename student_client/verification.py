"""Believes nothing that the service sends back before it fits what the service promised.

On first use the store *pins* the ledger's id and public key; whoever answers later must hold the
same key. Receipts must be signed by it, and their history must be one that a ledger that is only
ever added to can have.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ktan.answers import AnswerManifest, AnswerStore
from ktan.durable import write_durably
from ktan.errors import UserError
from privacy.errors import SignatureInvalid
from privacy.promise import Promise
from privacy.receipts import Receipt, verify
from student_client.description import TeacherDescription
from student_client.errors import AnswerRejected

PIN: Final = "service.json"


@dataclass(frozen=True)
class Pin:
    """Who may answer into a store: one ledger, known by its key, under one promise."""

    ledger_id: str
    public_key: bytes
    promise: Promise
    charge: int
    """Of one sample; fixed with the release settings."""

    @classmethod
    def of(cls, description: TeacherDescription) -> Pin:
        return cls(
            description.ledger_id, description.public_key, description.promise, description.charge
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "ledger_id": self.ledger_id,
            "public_key": self.public_key.hex(),
            "promise": self.promise.to_json(),
            "charge": self.charge,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Pin:
        return cls(
            values["ledger_id"],
            bytes.fromhex(values["public_key"]),
            Promise.from_json(values["promise"]),
            values["charge"],
        )

    @classmethod
    def read(cls, folder: Path) -> Pin | None:
        """The pin of a store; None where nothing was pinned yet."""
        path = folder / PIN
        if not path.exists():
            return None
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))


def open_store(folder: Path, description: TeacherDescription) -> AnswerStore:
    """The answer store of this teacher in `folder`, created and pinned on first use.

    Raises UserError when the folder belongs to another teacher version, other release settings,
    another ledger, another key or another promise: an answer under one is none under the other.
    """
    pin, pinned = Pin.of(description), Pin.read(folder)
    if pinned is not None:
        changed = [
            name
            for name in ("ledger_id", "public_key", "promise", "charge")
            if getattr(pinned, name) != getattr(pin, name)
        ]
        if changed:
            raise UserError(
                f"the service at {description.address} is not the one that {folder} was begun "
                f"with: its {', '.join(changed).replace('_', ' ')} changed. If its custodian "
                "says that this is right, use another --answers folder"
            )
    store = AnswerStore.open(folder, AnswerManifest(description.version, description.answer_taps))
    if pinned is None:
        write_durably(folder / PIN, (json.dumps(pin.to_json(), indent=2) + "\n").encode())
    return store


class Verifier:
    """Checks receipts and answers against the description and against all earlier receipts."""

    def __init__(self, description: TeacherDescription, earlier: Iterable[Receipt] = ()):
        self._description = description
        self._taps = {tap.name: tap for tap in description.answer_taps}
        self._seen = sorted(earlier, key=lambda receipt: receipt.entry)

    @classmethod
    def of(cls, description: TeacherDescription, store: AnswerStore) -> Verifier:
        """Knows all receipts that `store` holds."""
        return cls(description, (Receipt.from_json(values) for values in store.receipts()))

    def receipt(self, signed: bytes, request_id: str, samples: int) -> Receipt:
        """The receipt of one request for `samples` samples.

        Raises AnswerRejected when it is not signed by the pinned key, is for another request,
        ledger or promise, charges more than published, or contradicts an earlier receipt.
        """
        where = f"the receipt of {self._description.address}"
        try:
            receipt = Receipt.from_json_bytes(signed)
            verify(receipt, self._description.public_key)
        except ValueError as error:
            raise AnswerRejected(f"{where} cannot be read ({error})") from error
        except SignatureInvalid as error:
            raise AnswerRejected(f"{where} is not to be trusted: {error}") from error
        if receipt.ledger_id != self._description.ledger_id:
            raise AnswerRejected(f"{where} is of another ledger, {receipt.ledger_id}")
        if receipt.request_id != request_id:
            raise AnswerRejected(f"{where} is for another request, {receipt.request_id}")
        # The ledger's promise holds for any mode; the service's adds the mode it serves.
        if replace(receipt.promise, mode=None) != replace(self._description.promise, mode=None):
            raise AnswerRejected(f"{where} is under another promise than was published")
        limit = samples * self._description.charge
        if not 0 <= receipt.charge <= limit:
            raise AnswerRejected(
                f"{where} charges {receipt.charge:,} for {samples} samples, "
                f"published were at most {limit:,}"
            )
        self._compare(receipt, where)
        self._seen.append(receipt)
        return receipt

    def _compare(self, receipt: Receipt, where: str) -> None:
        """A ledger's spending never falls, and one number has one entry."""
        for earlier in self._seen:
            same = earlier.entry == receipt.entry
            if same and earlier.entry_hash != receipt.entry_hash:
                raise AnswerRejected(
                    f"{where} contradicts an earlier one: entry {receipt.entry} of the ledger has "
                    "two contents. The ledger was forked or rolled back; tell its auditor"
                )
            before, after = sorted((earlier, receipt), key=lambda item: item.entry)
            if before.spent > after.spent:
                raise AnswerRejected(
                    f"{where} contradicts an earlier one: {before.spent:,} was spent at entry "
                    f"{before.entry}, {after.spent:,} at entry {after.entry}. "
                    "The ledger was rolled back; tell its auditor"
                )

    def answers(
        self, answers: Mapping[str, npt.NDArray[np.float32]], samples: int
    ) -> dict[str, npt.NDArray[np.float32]]:
        """`answers`, if they are exactly the published taps for `samples` samples.

        Raises AnswerRejected for a missing or unknown tap, another shape or a value that is not
        finite.
        """
        where = f"the answer of {self._description.address}"
        if set(answers) != set(self._taps):
            names = ", ".join(sorted(answers)) or "none"
            raise AnswerRejected(
                f"{where} has the taps {names}; published: {', '.join(self._taps)}"
            )
        for name, tap in self._taps.items():
            expected = (samples, *tap.shape)
            if answers[name].shape != expected:
                raise AnswerRejected(
                    f"{where} has '{name}' in shape {answers[name].shape}, published: {expected}"
                )
            if not np.isfinite(answers[name]).all():
                raise AnswerRejected(f"{where} holds values in '{name}' that are not finite")
        return dict(answers)
