"""The hash chain: what an entry is, how it is hashed, and how a log is written line by line.

    hash(entry) = SHA-256("ktan.ledger.entry.v1\\n" ‖ canonical JSON of the entry)

An entry names the hash of the one before it, so that its own hash commits to the whole history.
Entry 0 carries the ledger's id, public key, data set and plan; it names 32 zero bytes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from privacy import canonical_json
from privacy.canonical_json import digest, exactly, integer, text
from privacy.receipts import SignedHead

EntryKind = Literal["open", "answers", "training", "cap", "key"]

LOG_FORMAT: Final = "ktan-ledger-log-1"
NO_PREDECESSOR: Final = bytes(32)
NOTHING_NEW: Final = hashlib.sha256().digest()
"""Answers digest of an entry that released nothing new."""

_DOMAIN: Final = b"ktan.ledger.entry.v1\n"
_KINDS: Final = frozenset(get_args(EntryKind))


@dataclass(frozen=True)
class Entry:
    """One link of the chain. Public: holds nothing that depends on a private record.

    number: 0 for the opening entry, then without gaps.
    previous: hash of entry `number - 1`, 32 bytes.
    time: UTC, ISO 8601, whole seconds; entries of older versions have microseconds.
    client, request_id: who asked, under which id; both "" for what the custodian did.
    releases: what the request asked for, one per sample and tap.
    charge, draws: added by this entry, in units of μ²·2⁴⁰ and in noise draws.
    spent_after, draws_after: totals of the ledger after this entry.
    answers_digest: see `answers_digest`.
    details: what only this kind of entry has; see `privacy/ledger/accounts.py`.
    """

    number: int
    previous: bytes
    kind: EntryKind
    time: str
    client: str
    request_id: str
    teacher_version: str
    releases: int
    charge: int
    draws: int
    spent_after: int
    draws_after: int
    answers_digest: bytes
    details: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A JSON object; digests in hexadecimal."""
        return {
            "number": self.number,
            "previous": self.previous.hex(),
            "kind": self.kind,
            "time": self.time,
            "client": self.client,
            "request_id": self.request_id,
            "teacher_version": self.teacher_version,
            "releases": self.releases,
            "charge": self.charge,
            "draws": self.draws,
            "spent_after": self.spent_after,
            "draws_after": self.draws_after,
            "answers_digest": self.answers_digest.hex(),
            "details": dict(self.details),
        }

    @classmethod
    def from_json(cls, value: Any) -> "Entry":
        """Raises ValueError for anything that `to_json` does not write."""
        fields = exactly(value, _FIELDS)
        if fields["kind"] not in _KINDS:
            raise ValueError(f"unknown kind of entry {fields['kind']!r}")
        if not isinstance(fields["details"], dict):
            raise ValueError("details must be an object")
        return cls(
            number=integer(fields["number"]),
            previous=digest(fields["previous"]),
            kind=fields["kind"],
            time=text(fields["time"]),
            client=text(fields["client"]),
            request_id=text(fields["request_id"]),
            teacher_version=text(fields["teacher_version"]),
            releases=integer(fields["releases"]),
            charge=integer(fields["charge"]),
            draws=integer(fields["draws"]),
            spent_after=integer(fields["spent_after"]),
            draws_after=integer(fields["draws_after"]),
            answers_digest=digest(fields["answers_digest"]),
            details=fields["details"],
        )

    def canonical(self) -> bytes:
        """The bytes that the ledger stores and hashes.

        What canonical_json.encode writes, three times faster: one of them per request.
        """
        string = canonical_json.encode_string
        new = self.details.get("new")
        if len(self.details) == 1 and type(new) is int:
            details = f'{{"new":{new}}}'
        else:
            details = canonical_json.encode(dict(self.details)).decode()
        return (
            f'{{"answers_digest":"{self.answers_digest.hex()}","charge":{self.charge},'
            f'"client":{string(self.client)},"details":{details},"draws":{self.draws},'
            f'"draws_after":{self.draws_after},"kind":{string(self.kind)},"number":{self.number},'
            f'"previous":"{self.previous.hex()}","releases":{self.releases},'
            f'"request_id":{string(self.request_id)},"spent_after":{self.spent_after},'
            f'"teacher_version":{string(self.teacher_version)},"time":{string(self.time)}}}'
        ).encode("ascii")

    def hash(self) -> bytes:
        """SHA-256 of the entry, 32 bytes."""
        return entry_hash(self.canonical())


_FIELDS: Final = frozenset(Entry.__dataclass_fields__)


def entry_hash(canonical: bytes) -> bytes:
    """Hash of an entry from its canonical bytes."""
    return hashlib.sha256(_DOMAIN + canonical).digest()


def answers_digest(answers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """SHA-256 over the keys (32 bytes) and payloads of newly stored answers, in storing order."""
    total = hashlib.sha256()
    for key, payload in answers:
        total.update(key + len(payload).to_bytes(8, "big") + payload)
    return total.digest()


def header_line(ledger_id: str, public_key: bytes) -> bytes:
    """First line of a log: which ledger it is of."""
    return canonical_json.encode(
        {"format": LOG_FORMAT, "ledger_id": ledger_id, "public_key": public_key.hex()}
    )


def entry_line(canonical: bytes, recorded_hash: bytes) -> bytes:
    """One entry of a log, from its stored bytes and the hash stored beside them."""
    return b'{"entry":%b,"hash":"%b"}' % (canonical, recorded_hash.hex().encode())


def head_line(head: SignedHead) -> bytes:
    """Last line of a log: the signed head."""
    return canonical_json.encode({"head": head.to_json()})
