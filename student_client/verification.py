"""Believes nothing that the service sends back before it fits what the service promised.

Receipts must be signed by the ledger's key (pin.py) of their entry, and their history must be one
that a ledger that is only ever added to can have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ktan.answers import AnswerStore
from privacy.errors import SignatureInvalid
from privacy.key_history import KeyHistory
from privacy.receipts import Receipt, verify
from student_client.description import TeacherDescription
from student_client.errors import AnswerRejected
from student_client.ledger_history import Contradiction, History
from student_client.pin import Pin


class Verifier:
    """Checks receipts and answers against the description and against all earlier receipts."""

    def __init__(
        self,
        description: TeacherDescription,
        earlier: Iterable[Receipt] = (),
        keys: KeyHistory | None = None,
    ):
        """keys: those that are trusted, when it is not the current one alone."""
        self._description = description
        self._keys = keys or description.keys.since(description.public_key)
        self._taps = {tap.name: tap for tap in description.answer_taps}
        self._history = History(earlier)

    @classmethod
    def of(cls, description: TeacherDescription, store: AnswerStore) -> Verifier:
        """Knows all receipts that `store` holds, and the keys that it pinned."""
        pin = Pin.read(store.folder)
        receipts = (Receipt.from_json(values) for values in store.receipts())
        return cls(description, receipts, None if pin is None else pin.keys)

    def receipt(
        self, signed: bytes, request_id: str, samples: int, taps: Sequence[str] | None = None
    ) -> Receipt:
        """The receipt of one request for these taps (all when None) of `samples` samples.

        Raises AnswerRejected when it is not signed by the pinned key, is for another request,
        ledger or promise, charges more than published, or contradicts an earlier receipt.
        """
        where = f"the receipt of {self._description.address}"
        try:
            receipt = Receipt.from_json_bytes(signed)
            verify(receipt, self._keys.at(receipt.entry))
        except ValueError as error:
            raise AnswerRejected(f"{where} cannot be read ({error})") from error
        except SignatureInvalid as error:
            raise AnswerRejected(
                f"{where} is not to be trusted: {error}. Should the ledger's key have been rotated "
                "just now, start again; nothing paid for is lost"
            ) from error
        if receipt.ledger_id != self._description.ledger_id:
            raise AnswerRejected(f"{where} is of another ledger, {receipt.ledger_id}")
        if receipt.request_id != request_id:
            raise AnswerRejected(f"{where} is for another request, {receipt.request_id}")
        # The ledger's promise holds for any mode; the service's adds the mode it serves.
        if replace(receipt.promise, mode=None) != replace(self._description.promise, mode=None):
            raise AnswerRejected(f"{where} is under another promise than was published")
        asked = self._description.tap_names if taps is None else taps
        limit = samples * self._description.charge_of(asked)
        if not 0 <= receipt.charge <= limit:
            raise AnswerRejected(
                f"{where} charges {receipt.charge:,} for {samples} samples, "
                f"published were at most {limit:,}"
            )
        try:
            self._history.add(receipt)
        except Contradiction as error:
            raise AnswerRejected(f"{where} contradicts an earlier one: {error}") from error
        return receipt

    def answers(
        self,
        answers: Mapping[str, npt.NDArray[np.float32]],
        samples: int,
        taps: Sequence[str] | None = None,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """`answers`, if they are exactly these published taps (all when None) of `samples` samples.

        Raises AnswerRejected for a missing or unknown tap, another shape or a value that is not
        finite.
        """
        where = f"the answer of {self._description.address}"
        asked = tuple(self._taps) if taps is None else taps
        if set(answers) != set(asked):
            names = ", ".join(sorted(answers)) or "none"
            raise AnswerRejected(f"{where} has the taps {names}; asked: {', '.join(asked)}")
        for name, tap in self._taps.items():
            if name not in answers:
                continue
            expected = (samples, *tap.shape)
            if answers[name].shape != expected:
                raise AnswerRejected(
                    f"{where} has '{name}' in shape {answers[name].shape}, published: {expected}"
                )
            if not np.isfinite(answers[name]).all():
                raise AnswerRejected(f"{where} holds values in '{name}' that are not finite")
        return dict(answers)
