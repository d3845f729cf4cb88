"""What a service says of itself: its teacher, its taps, its promise and what is left of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ktan.errors import UserError
from ktan.teacher import AnswerTap, TapKind
from privacy.key_history import KeyHistory, SigningKey
from privacy.promise import Adjacency, Promise
from protos import teacher_pb2 as pb
from student_client.errors import AnswerRejected

if TYPE_CHECKING:
    from ktan.data import Normalisation

_KINDS: Final[dict[int, TapKind]] = {
    pb.TAP_KIND_LOGITS: "logits",
    pb.TAP_KIND_PROBABILITIES: "probabilities",
    pb.TAP_KIND_HINT: "hint",
    pb.TAP_KIND_TSL: "tsl",
    pb.TAP_KIND_ATTENTION: "attention",
    pb.TAP_KIND_SIGNS: "signs",
    pb.TAP_KIND_PRODUCTS: "products",
}
_DTYPES: Final[dict[int, str]] = {
    pb.DATA_TYPE_UINT8: "uint8",
    pb.DATA_TYPE_FLOAT32: "float32",
    pb.DATA_TYPE_INT64: "int64",
}


@dataclass(frozen=True)
class PricedTap:
    """A tap with its public bound and what one sample's answer costs."""

    tap: AnswerTap
    bound: float
    """L2 bound B of one teacher's answer, in the tap's unit; 0 where nothing is clipped."""
    charge: int
    """Integer charge of one sample, in units of μ²·2⁴⁰."""


@dataclass(frozen=True)
class MethodOffer:
    """A distillation method that the service says it can serve, with the method's defaults."""

    name: str
    taps: tuple[str, ...]
    """Names of the taps that it uses."""
    charge: int
    """Of one sample, for these taps alone."""


@dataclass(frozen=True)
class Budget:
    """What was spent and what is left; charges in units of μ²·2⁴⁰, ε at the promise's δ."""

    budget: int
    spent: int
    left: int
    client_cap: int
    """The caller's own cap, 0 when it has none."""
    client_spent: int
    client_left: int
    """What the caller may still spend: the smaller of its cap's rest and the global rest."""
    epsilon_spent: float
    epsilon_budget: float
    draws_left: int

    @classmethod
    def from_message(cls, message: pb.Budget) -> Budget:
        return cls(
            budget=message.budget,
            spent=message.spent,
            left=message.left,
            client_cap=message.client_cap,
            client_spent=message.client_spent,
            client_left=message.client_left,
            epsilon_spent=message.epsilon_spent,
            epsilon_budget=message.epsilon_budget,
            draws_left=message.draws_left,
        )


@dataclass(frozen=True)
class TeacherDescription:
    """Everything that Describe publishes; `budget` is as it stood when it was asked."""

    address: str
    version: str
    mode: str
    teachers: int
    dataset: str
    classes: tuple[str, ...]
    input_name: str
    input_dtype: str
    input_shape: tuple[int, ...]
    normalisation: Normalisation | None
    taps: tuple[PricedTap, ...]
    promise: Promise
    budget: Budget
    max_samples: int
    public_key: bytes
    """Of the ledger, now: raw Ed25519, 32 bytes."""
    ledger_id: str
    keys: KeyHistory
    """All keys of the ledger, as the service tells them: believed only from a pinned key on."""
    offers: tuple[MethodOffer, ...] = ()
    taps_by_name: bool = False
    """Whether a request may name its taps. An older service reads no names: it answers, and
    charges, all taps."""

    @property
    def charge(self) -> int:
        """Charge of one sample, with every tap."""
        return self.charge_of(self.tap_names)

    def charge_of(self, taps: Sequence[str]) -> int:
        """Charge of one sample of which these taps are asked."""
        return sum(priced.charge for priced in self.taps if priced.tap.name in taps)

    def charges_alone(self, taps: Sequence[str]) -> bool:
        """Whether a request for these taps is charged for them alone."""
        return self.taps_by_name or set(taps) == set(self.tap_names)

    def require_askable(self, taps: Sequence[str]) -> None:
        """Raises UserError where a request for these taps alone would be charged for all."""
        if not self.charges_alone(taps):
            raise UserError(
                f"the service at {self.address} is an older one, which answers, and charges, all "
                f"its taps ({', '.join(self.tap_names)}) whichever are asked; ask for all of them "
                "with --all-taps (in Python: without `asks`), and keep them in an --answers folder "
                "that has no answers of single taps"
            )

    def draws_of(self, taps: Sequence[str]) -> int:
        """Noise draws of one such sample: the coordinates of its taps that are charged."""
        return sum(
            math.prod(priced.tap.shape)
            for priced in self.taps
            if priced.charge and priced.tap.name in taps
        )

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Of all taps, as published."""
        return tuple(priced.tap.name for priced in self.taps)

    @property
    def answer_taps(self) -> tuple[AnswerTap, ...]:
        return tuple(priced.tap for priced in self.taps)

    @classmethod
    def from_message(cls, address: str, message: pb.DescribeResponse) -> TeacherDescription:
        """Raises AnswerRejected when the description contradicts itself."""
        try:
            return cls(
                address=address,
                version=message.teacher_version,
                mode=message.mode,
                teachers=message.teachers,
                dataset=message.dataset,
                classes=tuple(message.classes),
                input_name=message.input_name,
                input_dtype=_DTYPES[message.input_dtype],
                input_shape=tuple(message.input_shape),
                normalisation=_normalisation(message),
                taps=tuple(_tap(tap) for tap in message.taps),
                promise=promise_of(message.promise),
                budget=Budget.from_message(message.budget),
                max_samples=message.max_samples_per_request,
                public_key=message.ledger_public_key,
                ledger_id=message.ledger_id,
                keys=_keys(message),
                offers=tuple(
                    MethodOffer(offer.name, tuple(offer.taps), offer.charge)
                    for offer in message.methods
                ),
                taps_by_name=message.taps_by_name,
            )._checked()
        except (KeyError, ValueError) as error:
            raise AnswerRejected(
                f"{address} describes itself in a way that this client does not understand "
                f"({error}); are both of the same version?"
            ) from error

    def _checked(self) -> TeacherDescription:
        if not self.version or not self.taps or not self.classes or not self.input_shape:
            raise ValueError("no version, taps, classes or input shape")
        if len(self.public_key) != 32:
            raise ValueError("the ledger's public key is not one of 32 bytes")
        if self.keys.current != self.public_key:
            raise ValueError("the ledger's public key is not the last of its keys")
        if self.max_samples < 1:
            raise ValueError("it takes no samples at all")
        names = [priced.tap.name for priced in self.taps]
        if len(set(names)) != len(names):
            raise ValueError("two taps of one name")
        for offer in self.offers:
            if not set(offer.taps) <= set(names) or offer.charge != self.charge_of(offer.taps):
                raise ValueError(f"its taps do not give method '{offer.name}' at that price")
        return self


def promise_of(message: pb.Promise) -> Promise:
    """The promise of a message. Raises ValueError for an unknown adjacency."""
    return Promise(
        epsilon=message.epsilon,
        delta=message.delta,
        adjacency=Adjacency(message.adjacency),
        unit=message.unit,
        mode=message.mode or None,
    )


def _keys(message: pb.DescribeResponse) -> KeyHistory:
    if not message.ledger_keys:
        return KeyHistory.starting_with(message.ledger_id, message.ledger_public_key)
    keys = tuple(
        SigningKey(key.public_key, key.entry, key.endorsement) for key in message.ledger_keys
    )
    return KeyHistory(message.ledger_id, keys)


def _normalisation(message: pb.DescribeResponse) -> Normalisation | None:
    if not message.normalisation.mean:
        return None
    # Comes with torch, which the budget is shown without.
    from ktan.data import Normalisation

    return Normalisation(
        tuple(message.normalisation.mean), tuple(message.normalisation.standard_deviation)
    )


def _tap(message: pb.TapDescription) -> PricedTap:
    if message.charge < 0 or not message.noise_standard_deviation >= 0:
        raise ValueError(f"tap '{message.name}' has a negative charge or noise")
    tap = AnswerTap(
        name=message.name,
        kind=_KINDS[message.kind],
        shape=tuple(message.shape),
        noise_sd=message.noise_standard_deviation,
        temperature=message.temperature or 1.0,
    )
    return PricedTap(tap, message.bound, message.charge)


def to_json(description: TeacherDescription) -> dict[str, Any]:
    """For machines: `describe --json`, and the run's record."""
    taps = [
        {**priced.tap.to_json(), "bound": priced.bound, "charge": priced.charge}
        for priced in description.taps
    ]
    normalisation = description.normalisation
    return {
        "address": description.address,
        "teacher_version": description.version,
        "mode": description.mode,
        "teachers": description.teachers,
        "dataset": description.dataset,
        "classes": list(description.classes),
        "input": {
            "name": description.input_name,
            "dtype": description.input_dtype,
            "shape": list(description.input_shape),
        },
        "normalisation": normalisation.to_json() if normalisation else None,
        "taps": taps,
        "charge_per_sample": description.charge,
        "methods": [
            {"name": offer.name, "taps": list(offer.taps), "charge_per_sample": offer.charge}
            for offer in description.offers
        ],
        "promise": description.promise.to_json(),
        "ledger_id": description.ledger_id,
        "public_key": description.public_key.hex(),
        "max_samples_per_request": description.max_samples,
    }
