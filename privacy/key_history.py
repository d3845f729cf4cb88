"""The keys that signed for one ledger, one after another, each endorsed by the one before.

    endorsement = Ed25519(old key, "ktan.ledger.key.v1\\n" ‖ canonical JSON of {entry, ledger_id,
                                                                              public_key})

Whoever trusts one key of a ledger can follow it to the next without trusting anybody new. `entry`
is the first entry of the chain that the new key signs for: heads and receipts of it and of all
later ones. Light like `receipts.py`: clients import it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from privacy import canonical_json
from privacy.canonical_json import digest, exactly, integer, text
from privacy.errors import KeyNotEndorsed

PIN: Final = "service.json"
"""Beside a student's answers: `KeyHistory.to_json` of the ledger that it trusted on first use."""
_DOMAIN: Final = b"ktan.ledger.key.v1\n"
_DETAILS: Final = frozenset({"public_key", "endorsement"})


@dataclass(frozen=True)
class SigningKey:
    """One key of a ledger. public_key: raw Ed25519, 32 bytes; entry: the first that it signs for;
    endorsement: 64 bytes by the key before, b"" for the key that the ledger was opened with."""

    public_key: bytes
    entry: int
    endorsement: bytes = b""

    def to_json(self) -> dict[str, Any]:
        """A JSON object; bytes in hexadecimal."""
        return {
            "public_key": self.public_key.hex(),
            "entry": self.entry,
            "endorsement": self.endorsement.hex(),
        }

    def details(self) -> dict[str, Any]:
        """The details of the entry that hands over to this key."""
        return {"public_key": self.public_key.hex(), "endorsement": self.endorsement.hex()}

    @classmethod
    def from_details(cls, entry: int, details: Any) -> Self:
        """The key that entry number `entry` hands over to. Raises ValueError."""
        return cls.from_json({"entry": entry, **exactly(details, _DETAILS)})

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises ValueError for anything that `to_json` does not write."""
        fields = exactly(value, frozenset({"public_key", "entry", "endorsement"}))
        endorsement = bytes.fromhex(text(fields["endorsement"]))
        return cls(digest(fields["public_key"]), integer(fields["entry"]), endorsement)


@dataclass(frozen=True)
class KeyHistory:
    """All keys of a ledger, oldest first. Not empty; nothing is checked when it is made."""

    ledger_id: str
    keys: tuple[SigningKey, ...]

    @classmethod
    def starting_with(cls, ledger_id: str, public_key: bytes) -> Self:
        """Of a ledger whose key was never rotated."""
        return cls(ledger_id, (SigningKey(public_key, 0),))

    def to_json(self) -> dict[str, Any]:
        """A JSON object, which may have other fields beside these: a pin has."""
        return {
            "ledger_id": self.ledger_id,
            "public_key": self.keys[0].public_key.hex(),
            "keys": [key.to_json() for key in self.keys],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Reads `to_json`, also without `keys` (the key was never rotated) or `ledger_id` ("").

        Nothing is verified. Raises KeyError, TypeError or ValueError for anything else.
        """
        first = cls.starting_with(values.get("ledger_id", ""), digest(values["public_key"]))
        if "keys" not in values:
            return first
        keys = tuple(map(SigningKey.from_json, values["keys"]))
        if not keys or keys[0].public_key != first.current:
            raise ValueError("its keys do not begin with its public key")
        return cls(first.ledger_id, keys)

    def of(self, ledger_id: str) -> Self:
        """This history; of this ledger, where it does not say of which it is."""
        return self if self.ledger_id else type(self)(ledger_id, self.keys)

    @property
    def current(self) -> bytes:
        """The key that signs now."""
        return self.keys[-1].public_key

    def __iter__(self) -> Iterator[SigningKey]:
        return iter(self.keys)

    def __contains__(self, public_key: bytes) -> bool:
        return any(key.public_key == public_key for key in self.keys)

    def at(self, entry: int) -> bytes:
        """The key that signs for this entry of the chain, and for a head that ends at it."""
        held = self.keys[0].public_key
        for key in self.keys[1:]:
            if key.entry > entry:
                break
            held = key.public_key
        return held

    def since(self, trusted: bytes) -> Self:
        """From `trusted` on, which then stands for all earlier entries too.

        Raises KeyNotEndorsed where no unbroken chain of endorsements leads from it to the current
        key.
        """
        self.verify(trusted)
        first = [key.public_key for key in self.keys].index(trusted)
        return type(self)(self.ledger_id, self.keys[first:])

    def followed_by(self, key: SigningKey) -> Self:
        """This history and one more key, whose endorsement `verify` checks."""
        return type(self)(self.ledger_id, (*self.keys, key))

    def verify(self, trusted: bytes) -> None:
        """Returns when an unbroken chain of endorsements leads from `trusted` to the current key.

        Raises KeyNotEndorsed where it is not among the keys, or at the first that is not endorsed.
        """
        if trusted not in self:
            raise KeyNotEndorsed(
                f"none of the {len(self.keys)} keys of ledger {self.ledger_id} is the trusted one, "
                f"{trusted.hex()[:16]}…"
            )
        places = [key.public_key for key in self.keys]
        first = places.index(trusted)
        for before, key in zip(self.keys[first:], self.keys[first + 1 :], strict=False):
            self._require_endorsed(before, key)

    def _require_endorsed(self, before: SigningKey, key: SigningKey) -> None:
        if key.entry <= before.entry:
            raise KeyNotEndorsed(
                f"the key {key.public_key.hex()[:16]}… begins at entry {key.entry}, the one before "
                f"it at entry {before.entry}",
                key.entry,
            )
        statement = _statement(self.ledger_id, key.entry, key.public_key)
        try:
            Ed25519PublicKey.from_public_bytes(before.public_key).verify(key.endorsement, statement)
        except (InvalidSignature, ValueError):
            raise KeyNotEndorsed(
                f"the key {key.public_key.hex()[:16]}… that signs from entry {key.entry} on is not "
                f"endorsed by the one before it, {before.public_key.hex()[:16]}…",
                key.entry,
            ) from None


def endorse(old: Ed25519PrivateKey, ledger_id: str, entry: int, public_key: bytes) -> SigningKey:
    """The next key of a ledger, from `entry` on, with the signature of the key that it replaces."""
    return SigningKey(public_key, entry, old.sign(_statement(ledger_id, entry, public_key)))


def _statement(ledger_id: str, entry: int, public_key: bytes) -> bytes:
    fields: Mapping[str, Any] = {
        "ledger_id": ledger_id,
        "entry": entry,
        "public_key": public_key.hex(),
    }
    return _DOMAIN + canonical_json.encode(dict(fields))
