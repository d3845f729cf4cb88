"""Who may answer into a store: trusted on first use, and recognised ever after.

The pin holds the ledger's id and the key that signed when the store was begun. Should the ledger's
custodian rotate that key, the service tells the keys that followed; they are believed only when
each was endorsed by the one before it, from the pinned key on. A service that shows an older
history than it showed before is not believed either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    """Of one sample; fixed with the release settings."""

    @property
    def ledger_id(self) -> str:
        """Of the ledger whose keys these are."""
        return self.keys.ledger_id

    @property
    def public_key(self) -> bytes:
        """The one that was trusted first."""
        return self.keys.keys[0].public_key

    @classmethod
    def of(cls, description: TeacherDescription) -> Pin:
        """For a first use: the key that signs now is trusted, and none before it."""
        return cls(
            keys=description.keys.since(description.public_key),
            promise=description.promise,
            charge=description.charge,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **self.keys.to_json(),
            "promise": self.promise.to_json(),
            "charge": self.charge,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Pin:
        return cls(
            keys=KeyHistory.from_json(values),
            promise=Promise.from_json(values["promise"]),
            charge=values["charge"],
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
        return replace(self, keys=keys)


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
