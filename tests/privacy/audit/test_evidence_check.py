"""What a log and a client's receipts say of the same entry."""

from dataclasses import replace
from pathlib import Path

import pytest

from privacy.receipts import sign
from tests.privacy.audit.found import found


def test_a_receipt_of_another_ledger(original) -> None:
    other = sign(replace(original.receipts[0], ledger_id="00" * 16), original.keys.signing)
    found(original.check(receipts=[(Path("x"), other)]), "receipt", None, "is of ledger 0000")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"charge": 1}, "says charge 1, entry 1 says 200000"),
        ({"client": "bob"}, "says client 'bob'"),
        ({"request_id": "r9"}, "says request id 'r9'"),
        ({"draws": 1}, "says noise draws 1"),
        ({"epsilon_spent": 0.0}, "states less ε"),
        ({"budget": 1}, "another promise or budget"),
    ],
)
def test_a_receipt_that_the_custodian_signed_and_the_log_does_not_bear_out(
    original, change, words
) -> None:
    signed = sign(replace(original.receipts[0], **change), original.keys.signing)
    found(original.check(receipts=[(Path("r"), signed)]), "receipt", 1, words)


def test_a_receipt_with_another_total(original) -> None:
    signed = sign(replace(original.receipts[0], spent=1), original.keys.signing)
    found(original.check(receipts=[(Path("r"), signed)]), "accounts", 1, "1 units were spent")
