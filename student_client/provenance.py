"""Under which promise a student was taught: what its card and its results say of privacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from privacy.promise import Promise
from privacy.receipts import Receipt
from student_client.describe import plain

Kind = Literal["private", "unprotected", "none"]

UNPROTECTED = "unprotected, for comparison"
"""Stands wherever a figure comes from answers without noise."""
LOCAL_ONLY = "local loss only, no teacher"


@dataclass(frozen=True)
class Provenance:
    """Where a student's answers came from, and what is guaranteed of them."""

    kind: Kind
    teacher: str
    """HOST:PORT, file:DIR or none."""
    teacher_version: str | None = None
    mode: str | None = None
    samples: int = 0
    """Answered samples that the student was trained on."""
    promise: Promise | None = None
    epsilon_spent: float | None = None
    """By the service for all clients, as its last receipt here says; at the promise's δ."""
    charge: int = 0
    """Sum over the receipts, in units of μ²·2⁴⁰."""
    ledger_id: str | None = None
    entries: tuple[int, int] | None = None
    """First and last ledger entry of the receipts."""
    receipts: int = 0

    @property
    def label(self) -> str:
        """A few words for a table."""
        if self.kind == "none":
            return LOCAL_ONLY
        if self.promise is None:
            return UNPROTECTED
        promise = self.promise
        return (
            f"ε = {self.epsilon_spent:.3g} of {promise.epsilon:g} at δ = {plain(promise.delta)}, "
            f"{promise.adjacency.value}, {promise.mode}"
        )

    @property
    def sentence(self) -> str:
        """What a reader of the card must know."""
        if self.kind == "none":
            return "Taught by public labels alone; no teacher was asked."
        if self.promise is None:
            return (
                f"Unprotected, for comparison: taught by {self.teacher} without noise and under no "
                "promise. Do not give it to anybody who may not see the private records."
            )
        promise = self.promise
        first, last = self.entries or (0, 0)
        return (
            f"Taught by {self.samples:,} answers of a private teacher (mode {promise.mode}), whose "
            f"service had spent ε = {self.epsilon_spent:.4g} of {promise.epsilon:g} at δ = "
            f"{plain(promise.delta)} by then, {promise.adjacency.value}, for any one "
            f"{promise.unit}, over all its clients. Receipts: {self.receipts:,}, entries {first} "
            f"to {last} of ledger {self.ledger_id}, charge {self.charge:,}."
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "label": self.label,
            "sentence": self.sentence,
            "teacher": self.teacher,
            "teacher_version": self.teacher_version,
            "mode": self.mode,
            "samples": self.samples,
            "promise": None if self.promise is None else self.promise.to_json(),
            "epsilon_spent": self.epsilon_spent,
            "charge": self.charge,
            "ledger_id": self.ledger_id,
            "receipts": {
                "count": self.receipts,
                "first_entry": self.entries[0] if self.entries else None,
                "last_entry": self.entries[1] if self.entries else None,
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Provenance:
        """The inverse of `to_json`. Raises KeyError or ValueError for anything else."""
        receipts = values["receipts"]
        first, last = receipts["first_entry"], receipts["last_entry"]
        return cls(
            kind=values["kind"],
            teacher=values["teacher"],
            teacher_version=values["teacher_version"],
            mode=values["mode"],
            samples=values["samples"],
            promise=None if values["promise"] is None else Promise.from_json(values["promise"]),
            epsilon_spent=values["epsilon_spent"],
            charge=values["charge"],
            ledger_id=values["ledger_id"],
            entries=None if first is None else (first, last),
            receipts=receipts["count"],
        )


def private(
    teacher: str,
    version: str,
    promise: Promise,
    ledger_id: str,
    receipts: Sequence[Receipt],
    samples: int,
) -> Provenance:
    """Of answers that were released under a ledger, with a receipt for each request."""
    entries = [receipt.entry for receipt in receipts]
    return Provenance(
        kind="private",
        teacher=teacher,
        teacher_version=version,
        mode=promise.mode,
        samples=samples,
        promise=promise,
        epsilon_spent=max((receipt.epsilon_spent for receipt in receipts), default=0.0),
        charge=sum(receipt.charge for receipt in receipts),
        ledger_id=ledger_id,
        entries=(min(entries), max(entries)) if entries else None,
        receipts=len(receipts),
    )


def unprotected(teacher: str, version: str, mode: str, samples: int) -> Provenance:
    """Of answers that no noise stood before."""
    return Provenance("unprotected", teacher, version, mode, samples)


def alone() -> Provenance:
    """Of a student that asked nobody."""
    return Provenance("none", "none")
