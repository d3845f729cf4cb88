r"""What a client and an auditor hold in their hands: signed receipts and signed heads of a ledger.

A receipt says which entry of the ledger's chain a request became and what it cost. A head says
where the chain ended at some moment. Both are signed with the ledger's Ed25519 key (RFC 8032) over
explicit canonical bytes, so that whoever keeps one can later show that the log was edited,
truncated or forked. This module is light (standard library and `cryptography`): clients import it.

Requests that one commit made durable share one signature: of the root of a hash tree over their
receipts (merkle.py). Such a receipt carries its `path` to that root.

    statement   "ktan.ledger.receipt.v1\n" ‖ canonical JSON without signature and path
    alone       Ed25519(statement)                                                 (no path)
    together    Ed25519("ktan.ledger.receipts.v1\n" ‖ root over leaf(statement))   (a path)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from privacy import canonical_json, merkle
from privacy.canonical_json import digest, exactly, integer, text
from privacy.errors import SignatureInvalid
from privacy.promise import Promise

_RECEIPT_DOMAIN: Final = b"ktan.ledger.receipt.v1\n"
_BATCH_DOMAIN: Final = b"ktan.ledger.receipts.v1\n"
_HEAD_DOMAIN: Final = b"ktan.ledger.head.v1\n"
_LONGEST_PATH: Final = 64


@dataclass(frozen=True)
class Receipt:
    """What one accepted request became.

    ledger_id: 32 hexadecimal digits.
    entry, entry_hash: number and SHA-256 (32 bytes) of the entry in the chain.
    client, request_id: whose request; client "" is the custodian (a training run).
    charge, draws: what this request added, in units of μ²·2⁴⁰ and in noise draws.
    spent, budget: of all clients together after this entry, in the same units.
    epsilon_spent: ε at the promise's δ of everything spent when the receipt was made durable, at
    least `spent`; an upper bound.
    signature: Ed25519, 64 bytes, of the root that `path` leads to.
    path: from this receipt to the root of those that were made durable with it; None: the
    signature is of this receipt alone.
    """

    ledger_id: str
    entry: int
    entry_hash: bytes
    client: str
    request_id: str
    charge: int
    draws: int
    spent: int
    budget: int
    epsilon_spent: float
    promise: Promise
    signature: bytes = b""
    path: merkle.InclusionPath | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; digests and the signature in hexadecimal."""
        value = self._body() | {"signature": self.signature.hex()}
        if self.path is not None:
            value["path"] = [[side, sibling.hex()] for side, sibling in self.path]
        return value

    def to_json_bytes(self) -> bytes:
        """The canonical bytes that travel to the client."""
        path = ""
        if self.path is not None:
            steps = [f'["{side}","{sibling.hex()}"]' for side, sibling in self.path]
            path = f'"path":[{",".join(steps)}],'
        return self._canonical(path, f'"signature":"{self.signature.hex()}",')

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Receipt":
        """Raises ValueError for anything that `to_json` does not write. Checks no signature."""
        names = frozenset(cls.__dataclass_fields__)
        fields = exactly(dict(value), names if "path" in value else names - {"path"})
        epsilon = fields["epsilon_spent"]
        if type(epsilon) not in (int, float) or not (math.isfinite(epsilon) and epsilon >= 0):
            raise ValueError(f"epsilon_spent must be a number of at least 0, not {epsilon!r}")
        try:
            promise = Promise.from_json(fields["promise"])
        except (KeyError, TypeError) as error:
            raise ValueError("no promise that this version understands") from error
        return cls(
            ledger_id=text(fields["ledger_id"]),
            entry=integer(fields["entry"]),
            entry_hash=digest(fields["entry_hash"]),
            client=text(fields["client"]),
            request_id=text(fields["request_id"]),
            charge=integer(fields["charge"]),
            draws=integer(fields["draws"]),
            spent=integer(fields["spent"]),
            budget=integer(fields["budget"]),
            epsilon_spent=float(epsilon),
            promise=promise,
            signature=_signature(fields["signature"]),
            path=_path(fields["path"]) if "path" in fields else None,
        )

    @classmethod
    def from_json_bytes(cls, data: bytes) -> "Receipt":
        """Reads what `to_json_bytes` wrote; raises ValueError for any other byte form."""
        return cls.from_json(canonical_json.decode(data))

    def signed(self, signature: bytes, path: merkle.InclusionPath | None) -> "Receipt":
        """The same receipt under this signature."""
        # As dataclasses.replace would, at a fifth of its cost: one per request, under the lock.
        made = object.__new__(Receipt)
        made.__dict__.update(self.__dict__, signature=signature, path=path)
        return made

    def signed_bytes(self) -> bytes:
        """What the signature vouches for: a domain line and every field but signature and path."""
        return _RECEIPT_DOMAIN + self._canonical("", "")

    def _canonical(self, path: str, signature: str) -> bytes:
        """What canonical_json.encode writes, six times faster: every request is signed and stored.

        path, signature: these fields, each with a comma behind it, or nothing.
        """
        string = canonical_json.encode_string
        return (
            f'{{"budget":{self.budget},"charge":{self.charge},"client":{string(self.client)},'
            f'"draws":{self.draws},"entry":{self.entry},"entry_hash":"{self.entry_hash.hex()}",'
            f'"epsilon_spent":{canonical_json.encode_float(float(self.epsilon_spent))},'
            f'"ledger_id":{string(self.ledger_id)},{path}"promise":{self.promise.canonical},'
            f'"request_id":{string(self.request_id)},{signature}"spent":{self.spent}}}'
        ).encode("ascii")

    def _body(self) -> dict[str, Any]:
        return {
            "ledger_id": self.ledger_id,
            "entry": self.entry,
            "entry_hash": self.entry_hash.hex(),
            "client": self.client,
            "request_id": self.request_id,
            "charge": self.charge,
            "draws": self.draws,
            "spent": self.spent,
            "budget": self.budget,
            "epsilon_spent": float(self.epsilon_spent),
            "promise": self.promise.to_json(),
        }


@dataclass(frozen=True)
class SignedHead:
    """Where a ledger's chain ended: its last entry's number and hash, and the units spent then."""

    ledger_id: str
    entry: int
    entry_hash: bytes
    spent: int
    signature: bytes = b""

    def to_json(self) -> dict[str, Any]:
        """A JSON object; digests and the signature in hexadecimal."""
        return self._body() | {"signature": self.signature.hex()}

    def to_json_bytes(self) -> bytes:
        """The canonical bytes, as a witness file or an auditor keeps them."""
        return canonical_json.encode(self.to_json())

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SignedHead":
        """Raises ValueError for anything that `to_json` does not write. Checks no signature."""
        fields = exactly(dict(value), frozenset(cls.__dataclass_fields__))
        return cls(
            ledger_id=text(fields["ledger_id"]),
            entry=integer(fields["entry"]),
            entry_hash=digest(fields["entry_hash"]),
            spent=integer(fields["spent"]),
            signature=_signature(fields["signature"]),
        )

    @classmethod
    def from_json_bytes(cls, data: bytes) -> "SignedHead":
        """Reads what `to_json_bytes` wrote; raises ValueError for any other byte form."""
        return cls.from_json(canonical_json.decode(data))

    def signed_bytes(self) -> bytes:
        """What the signature covers: a domain line and every field but the signature."""
        return _HEAD_DOMAIN + canonical_json.encode(self._body())

    def _body(self) -> dict[str, Any]:
        return {
            "ledger_id": self.ledger_id,
            "entry": self.entry,
            "entry_hash": self.entry_hash.hex(),
            "spent": self.spent,
        }


_Signed = TypeVar("_Signed", Receipt, SignedHead)


def sign(unsigned: _Signed, key: Ed25519PrivateKey) -> _Signed:
    """The same receipt or head with a signature of its own."""
    signature = key.sign(unsigned.signed_bytes())
    if isinstance(unsigned, Receipt):
        return unsigned.signed(signature, None)
    return replace(unsigned, signature=signature)


def sign_together(unsigned: Sequence[Receipt], key: Ed25519PrivateKey) -> list[Receipt]:
    """The same receipts, at least one, under one signature, each with its path to what it is of."""
    root, paths = merkle.grow([merkle.leaf(receipt.signed_bytes()) for receipt in unsigned])
    signature = key.sign(_BATCH_DOMAIN + root)
    return [receipt.signed(signature, path) for receipt, path in zip(unsigned, paths, strict=True)]


def verify(signed: Receipt | SignedHead, public_key: bytes) -> None:
    """Returns when `signed` was signed by the ledger with this raw 32-byte public key.

    Raises SignatureInvalid otherwise, and ValueError when `public_key` is not of 32 bytes.
    """
    key = Ed25519PublicKey.from_public_bytes(public_key)
    try:
        key.verify(signed.signature, _statement(signed))
    except InvalidSignature:
        what = "receipt" if isinstance(signed, Receipt) else "head"
        raise SignatureInvalid(
            f"the signature of the {what} of entry {signed.entry} does not fit: it was changed, "
            "or another key signed it"
        ) from None


def read_public_key(path: Path) -> bytes:
    """The raw 32 bytes of an Ed25519 public key from a PEM file, or from 64 hexadecimal digits.

    Raises ValueError for a file that holds neither, OSError when it cannot be read.
    """
    data = path.read_bytes().strip()
    try:
        return digest(data.decode("ascii"))
    except ValueError:
        pass
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} holds no public key, neither as PEM nor as 64 digits") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} holds a public key of another kind than Ed25519")
    return key.public_bytes_raw()


def _statement(signed: Receipt | SignedHead) -> bytes:
    """The bytes that Ed25519 signs."""
    content = signed.signed_bytes()
    if isinstance(signed, Receipt) and signed.path is not None:
        return _BATCH_DOMAIN + merkle.root(merkle.leaf(content), signed.path)
    return content


def _path(value: Any) -> merkle.InclusionPath:
    if not isinstance(value, list) or len(value) > _LONGEST_PATH:
        raise ValueError(f"a path is a list of at most {_LONGEST_PATH} steps")
    steps: list[tuple[merkle.Side, bytes]] = []
    for step in value:
        if not (isinstance(step, list) and len(step) == 2 and step[0] in ("left", "right")):
            raise ValueError("a step of a path is a side, left or right, and a hash")
        steps.append((step[0], digest(step[1])))
    return tuple(steps)


def _signature(value: Any) -> bytes:
    data = bytes.fromhex(text(value))
    if data.hex() != value or len(data) != 64:
        raise ValueError("a signature is 128 lower-case hexadecimal digits")
    return data
