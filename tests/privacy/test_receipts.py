"""Receipts and heads: what is signed, what is refused, and that the module stays light."""

import hashlib
import math
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from privacy import canonical_json
from privacy.errors import SignatureInvalid
from privacy.promise import Adjacency, Promise
from privacy.receipts import Receipt, SignedHead, read_public_key, sign, sign_together, verify

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


texts = st.text(max_size=30)
counts = st.integers(0, 2**62)
hashes = st.binary(min_size=32, max_size=32)
paths = st.none() | st.lists(st.tuples(st.sampled_from(["left", "right"]), hashes)).map(tuple)
receipts = st.builds(
    Receipt,
    ledger_id=texts,
    entry=counts,
    entry_hash=hashes,
    client=texts,
    request_id=texts,
    charge=counts,
    draws=counts,
    spent=counts,
    budget=counts,
    epsilon_spent=st.floats(0, allow_infinity=False) | st.integers(0, 100),
    promise=st.builds(
        Promise,
        st.floats(0, 1e300) | st.integers(0, 9),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(Adjacency),
        st.text(min_size=1),
        st.none() | texts,
    ),
    signature=st.binary(min_size=64, max_size=64),
    path=paths,
)


@given(receipts)
def test_the_written_out_form_of_a_receipt_is_the_canonical_one(receipt: Receipt) -> None:
    whole = receipt.to_json()
    assert receipt.to_json_bytes() == canonical_json.encode(whole)
    statement = {name: whole[name] for name in whole if name not in ("signature", "path")}
    assert receipt.signed_bytes() == b"ktan.ledger.receipt.v1\n" + canonical_json.encode(statement)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_receipt_holds_no_number_that_json_cannot(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        replace(receipt(), epsilon_spent=value).to_json_bytes()


def together(count: int) -> list[Receipt]:
    return sign_together([replace(receipt(), entry=number) for number in range(count)], KEY)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 64, 67])
def test_receipts_that_were_signed_together_each_verify_alone(count: int) -> None:
    for number, made in enumerate(together(count)):
        again = Receipt.from_json_bytes(made.to_json_bytes())
        assert again == made
        assert again.entry == number
        verify(again, PUBLIC)
    assert len({made.signature for made in together(count)}) == 1


def test_the_shared_signature_is_over_the_documented_tree() -> None:
    """RFC 6962, 2.1, spelt out for three leaves: ((0, 1), 2)."""

    def sha(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    made = together(3)
    leaves = [sha(b"\x00", item.signed_bytes()) for item in made]
    pair = sha(b"\x01", leaves[0], leaves[1])
    root = sha(b"\x01", pair, leaves[2])
    public = Ed25519PublicKey.from_public_bytes(PUBLIC)
    public.verify(made[0].signature, b"ktan.ledger.receipts.v1\n" + root)
    assert [item.path for item in made] == [
        (("right", leaves[1]), ("right", leaves[2])),
        (("left", leaves[0]), ("right", leaves[2])),
        (("left", pair),),
    ]


def test_a_path_proves_its_own_receipt_and_no_other() -> None:
    made = together(5)
    for taken in made:
        for other in made:
            if other is not taken:
                with pytest.raises(SignatureInvalid):
                    verify(replace(taken, path=other.path), PUBLIC)
    first = made[0]
    turned = tuple(("left" if side == "right" else "right", node) for side, node in first.path)
    for path in ((), first.path[:-1], first.path[1:], turned, None):
        with pytest.raises(SignatureInvalid):
            verify(replace(first, path=path), PUBLIC)


def test_a_receipt_signed_alone_is_not_one_signed_in_a_group_of_one() -> None:
    alone, (grouped,) = receipt(), sign_together([receipt()], KEY)
    assert (alone.path, grouped.path) == (None, ())
    assert "path" not in alone.to_json()
    assert grouped.to_json()["path"] == []
    for mixed in (replace(alone, path=()), replace(grouped, path=None)):
        with pytest.raises(SignatureInvalid):
            verify(mixed, PUBLIC)


@pytest.mark.parametrize(
    "path",
    [{}, "left", [["up", "00" * 32]], [["left"]], [["left", "00"]], [["left", "00" * 32]] * 65],
)
def test_a_path_of_another_form_is_refused(path: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Receipt.from_json(receipt().to_json() | {"path": path})
