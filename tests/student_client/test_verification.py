"""A receipt is believed only if it is signed, fits the request and fits all earlier receipts."""

from dataclasses import replace

import numpy as np
import pytest

from student_client.description import TeacherDescription
from student_client.errors import AnswerRejected
from student_client.verification import Verifier

ID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def service(new_service):
    one = new_service()
    one.spent, one.entry = 5000, 3
    return one


@pytest.fixture
def description(service):
    return TeacherDescription.from_message("127.0.0.1:50051", service.Describe(None, None))


def test_a_true_receipt_is_returned(service, description):
    signed = service.receipt(ID, 5000, 5)
    assert Verifier(description).receipt(signed.to_json_bytes(), ID, 5) == signed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_id": ID.replace("1", "2")}, "is for another request"),
        ({"ledger_id": "b" * 32}, "is of another ledger"),
        ({"charge": 5001}, "charges 5,001 for 5 samples, published were at most 5,000"),
    ],
)
def test_a_signed_receipt_for_something_else_is_rejected(service, description, changes, message):
    signed = service.receipt(ID, 5000, 5, **changes)
    with pytest.raises(AnswerRejected, match=message):
        Verifier(description).receipt(signed.to_json_bytes(), ID, 5)


def test_another_promise_is_rejected(service, description):
    weaker = replace(description.promise, epsilon=8.0, mode=None)
    signed = service.receipt(ID, 5000, 5, promise=weaker)
    with pytest.raises(AnswerRejected, match="another promise"):
        Verifier(description).receipt(signed.to_json_bytes(), ID, 5)


def test_another_key_is_rejected(service, description, new_service):
    stranger = new_service()
    stranger.spent, stranger.entry = service.spent, service.entry
    with pytest.raises(AnswerRejected, match="not to be trusted"):
        Verifier(description).receipt(stranger.receipt(ID, 5000, 5).to_json_bytes(), ID, 5)


@pytest.mark.parametrize("garbage", [b"", b"{}", b"null", b"\xff", b'{"entry": 1}'])
def test_garbage_is_rejected(description, garbage):
    with pytest.raises(AnswerRejected, match="cannot be read"):
        Verifier(description).receipt(garbage, ID, 5)


def test_a_rolled_back_ledger_is_seen(service, description):
    earlier = service.receipt(ID, 5000, 5)
    service.entry, service.spent = 4, 4000
    later = service.receipt(ID, 5000, 5)
    with pytest.raises(AnswerRejected, match="was rolled back"):
        Verifier(description, [earlier]).receipt(later.to_json_bytes(), ID, 5)


def test_a_forked_ledger_is_seen(service, description):
    earlier = service.receipt(ID, 5000, 5)
    other = service.receipt(ID, 5000, 5, entry_hash=b"x" * 32)
    with pytest.raises(AnswerRejected, match="entry 3 of the ledger has two contents"):
        Verifier(description, [earlier]).receipt(other.to_json_bytes(), ID, 5)


def test_an_older_receipt_may_come_late(service, description):
    # A request that was charged before a crash is settled after its successors.
    older = service.receipt(ID, 5000, 5)
    service.entry, service.spent = 7, 9000
    newer = service.receipt(ID, 4000, 4)
    assert Verifier(description, [newer]).receipt(older.to_json_bytes(), ID, 5) == older


def _answers(samples=3, **changes):
    good = {
        "probabilities": np.zeros((samples, 10), np.float32),
        "hint": np.zeros((samples, 8), np.float32),
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def test_the_published_taps_pass(description):
    assert set(Verifier(description).answers(_answers(), 3)) == {"probabilities", "hint"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hint": None}, "has the taps probabilities; asked: probabilities, hint"),
        ({"extra": np.zeros((3, 1), np.float32)}, "has the taps extra"),
        ({"hint": np.zeros((3, 9), np.float32)}, r"'hint' in shape \(3, 9\)"),
        ({"hint": np.zeros((2, 8), np.float32)}, r"published: \(3, 8\)"),
        ({"hint": np.full((3, 8), np.nan, np.float32)}, "'hint' that are not finite"),
    ],
)
def test_other_answers_are_rejected(description, changes, message):
    with pytest.raises(AnswerRejected, match=message):
        Verifier(description).answers(_answers(**changes), 3)
