"""Receipts and heads: what is signed, what is refused, and that the module stays light."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from privacy.errors import SignatureInvalid
from privacy.promise import Adjacency, Promise
from privacy.receipts import Receipt, SignedHead, read_public_key, sign, verify

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
PROMISE = Promise(4.0, 1e-5, Adjacency.REPLACE_ONE, "record")


def receipt() -> Receipt:
    return sign(
        Receipt("ab" * 16, 7, bytes(range(32)), "alice", "r-1", 40, 10, 400, 1000, 0.25, PROMISE),
        KEY,
    )


def head() -> SignedHead:
    return sign(SignedHead("ab" * 16, 7, bytes(range(32)), 400), KEY)


def test_a_signed_receipt_verifies_and_survives_the_wire() -> None:
    again = Receipt.from_json_bytes(receipt().to_json_bytes())
    assert again == receipt()
    verify(again, PUBLIC)


def test_the_signature_is_over_the_documented_bytes() -> None:
    """Checked with the library alone, from the bytes as docs/ledger.md spells them."""
    body = (
        b'{"budget":1000,"charge":40,"client":"alice","draws":10,"entry":7,"entry_hash":"'
        + bytes(range(32)).hex().encode()
        + b'","epsilon_spent":0.25,"ledger_id":"'
        + b"ab" * 16
        + b'","promise":{"adjacency":"replace-one","delta":1e-05,"epsilon":4.0,"mode":null,'
        + b'"unit":"record"},"request_id":"r-1","spent":400}'
    )
    public = Ed25519PublicKey.from_public_bytes(PUBLIC)
    public.verify(receipt().signature, b"ktan.ledger.receipt.v1\n" + body)
    with pytest.raises(InvalidSignature):
        public.verify(receipt().signature, body)


CHANGES = {
    "ledger_id": "cd" * 16,
    "entry": 8,
    "entry_hash": bytes(32),
    "client": "bob",
    "request_id": "r-2",
    "charge": 39,
    "draws": 9,
    "spent": 399,
    "budget": 1001,
    "epsilon_spent": 0.24,
    "promise": replace(PROMISE, epsilon=3.0),
    "signature": bytes(64),
    "path": (("left", bytes(32)),),
}


@pytest.mark.parametrize("field", [field.name for field in fields(Receipt)])
def test_a_change_of_any_field_is_noticed(field: str) -> None:
    with pytest.raises(SignatureInvalid, match=r"entry [78]"):
        verify(replace(receipt(), **{field: CHANGES[field]}), PUBLIC)


@pytest.mark.parametrize("field", [field.name for field in fields(SignedHead)])
def test_a_change_of_any_field_of_a_head_is_noticed(field: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify(replace(head(), **{field: CHANGES[field]}), PUBLIC)


def test_another_key_did_not_sign_it() -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(SignatureInvalid):
        verify(receipt(), other)


def test_a_head_is_no_receipt_even_with_the_same_content() -> None:
    assert head().signed_bytes().split(b"\n")[0] != receipt().signed_bytes().split(b"\n")[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("entry", True),
        ("entry", -1),
        ("charge", 1.0),
        ("entry_hash", "00"),
        ("client", 3),
        ("epsilon_spent", -0.1),
        ("epsilon_spent", "0.1"),
        ("promise", {}),
        ("promise", None),
        ("signature", ""),
        ("signature", "AB" * 64),
    ],
)
def test_a_receipt_of_other_types_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Receipt.from_json(receipt().to_json() | {field: value})


def test_missing_and_unknown_fields_are_refused() -> None:
    whole = receipt().to_json()
    with pytest.raises(ValueError, match="charge"):
        Receipt.from_json({name: whole[name] for name in whole if name != "charge"})
    with pytest.raises(ValueError, match="extra"):
        SignedHead.from_json(head().to_json() | {"extra": 1})


def test_reads_public_keys_as_pem_and_as_digits(tmp_path: Path) -> None:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for content in (pem, PUBLIC.hex().encode(), PUBLIC.hex().encode() + b"\n"):
        (tmp_path / "key").write_bytes(content)
        assert read_public_key(tmp_path / "key") == PUBLIC
    (tmp_path / "key").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="neither"):
        read_public_key(tmp_path / "key")
    other = Ed448PrivateKey.generate().public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(pem)
    with pytest.raises(ValueError, match="another kind"):
        read_public_key(tmp_path / "key")


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "numpy scipy torch sqlalchemy opendp dp_accounting safetensors cyclopts"
    program = f"import sys, privacy.receipts; print(set('{heavy}'.split()) & set(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "set()"
