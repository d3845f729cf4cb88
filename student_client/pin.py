"""Who may answer into a store: trusted on first use, and recognised ever after.

The pin holds the ledger's id and the key that signed when the store was begun. Should the ledger's
custodian rotate that key, the service tells the keys that followed; they are believed only when
each was endorsed by the one before it, from the pinned key on. A service that shows an older
history than it showed before is not believed either.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ktan.answers import AnswerManifest, AnswerStore
from ktan.durable import write_durably
from ktan.errors import UserError
from privacy.errors import KeyNotEndorsed
from privacy.key_history import PIN, KeyHistory
from privacy.promise import Promise
from student_client.description import TeacherDescription


@dataclass(frozen=True)
class Pin:
    """One ledger, known by its key, under one promise."""

    keys: KeyHistory
    """The one that was trusted first, and those that followed it."""
    promise: Promise
    charge: int
    """Of one sample with every tap; fixed with the release settings."""
    charges: Mapping[str, int] = field(default_factory=dict)
    """Of each tap of one sample; of a pin that was made before taps could be chosen, empty."""

    @property
    def ledger_id(self) -> str:
        """Of the ledger whose keys these are."""
        return self.keys.ledger_id

    @property
    def public_key(self) -> bytes:
        """The one that was trusted first."""
        return self.keys.keys[0].public_key

    def charge_of(self, taps: Collection[str]) -> int:
        """Of one sample of which these taps are asked."""
        if not self.charges:
            return self.charge
        return sum(charge for name, charge in self.charges.items() if name in taps)

    @classmethod
    def of(cls, description: TeacherDescription) -> Pin:
        """For a first use: the key that signs now is trusted, and none before it."""
        return cls(
            keys=description.keys.since(description.public_key),
            promise=description.promise,
            charge=description.charge,
            charges=_charges(description),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **self.keys.to_json(),
            "promise": self.promise.to_json(),
            "charge": self.charge,
            "charges": dict(self.charges),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Pin:
        return cls(
            keys=KeyHistory.from_json(values),
            promise=Promise.from_json(values["promise"]),
            charge=values["charge"],
            charges=dict(values.get("charges", {})),
        )

    @classmethod
    def read(cls, folder: Path) -> Pin | None:
        """The pin of a store; None where nothing was pinned yet."""
        path = folder / PIN
        if not path.exists():
            return None
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        """On return it is on disk."""
        write_durably(folder / PIN, (json.dumps(self.to_json(), indent=2) + "\n").encode())

    def followed_to(self, description: TeacherDescription, folder: Path) -> Pin:
        """This pin with the keys that the ledger has now.

        Raises UserError for another ledger, promise or charge, a key without endorsement, and a
        history that lacks a key seen before.
        """
        changed = [
            name
            for name in ("ledger_id", "promise", "charge")
            if getattr(self, name) != getattr(description, name)
        ]
        if "charge" not in changed and self.charges and self.charges != _charges(description):
            changed.append("charge")
        why = ""
        try:
            keys = description.keys.since(self.public_key)
        except KeyNotEndorsed as error:
            keys = self.keys
            changed.append("public key")
            why = f" ({error})"
        if keys.keys[: len(self.keys.keys)] != self.keys.keys:
            changed.append("public key")
            why = " (it lacks one seen before: was the ledger restored from a copy?)"
        if changed:
            raise UserError(
                f"the service at {description.address} is not the one that {folder} was begun "
                f"with: its {', '.join(changed).replace('_', ' ')} changed{why}. If its custodian "
                "says that this is right, use another --answers folder"
            )
        return replace(self, keys=keys, charges=_charges(description))


def _charges(description: TeacherDescription) -> dict[str, int]:
    return {priced.tap.name: priced.charge for priced in description.taps}


def open_store(folder: Path, description: TeacherDescription) -> AnswerStore:
    """The answer store of this teacher in `folder`, created and pinned on first use.

    Raises UserError when the folder belongs to another teacher version, other release settings,
    another ledger, a key that none before it endorsed, or another promise: an answer under one is
    none under the other.
    """
    pinned = Pin.read(folder)
    pin = Pin.of(description) if pinned is None else pinned.followed_to(description, folder)
    store = AnswerStore.open(folder, AnswerManifest(description.version, description.answer_taps))
    if pin != pinned:
        pin.write(folder)
    return store
