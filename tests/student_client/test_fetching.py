"""Each answer is paid for once: whatever fails, in whatever order, and whoever crashes."""

import hashlib
import threading

import grpc
import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ktan.answers import AnswerStore
from ktan.digests import sample_digests
from ktan.errors import UserError
from student_client.errors import AnswerRejected, BudgetRefused, TeacherError, TeacherUnavailable
from student_client.fetching import FetchingTeacher, Pool, batch_size, fetch
from student_client.pin import open_store
from student_client.verification import Verifier

PRICE = 1000
PATIENCE = 120.0


@pytest.fixture
def samples():
    return torch.randint(0, 256, (50, 1, 28, 28), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )


def _fetch(stage, folder, samples, rows=None, **options):
    """One run of a client from nothing: opens, fetches, closes; returns what it fetched.

    One request after the other, unless told otherwise: test_in_flight.py has several.
    """
    options.setdefault("in_flight", 1)
    patience = options.pop("patience", PATIENCE)
    with stage.teacher(patience=patience, deadline=options.pop("deadline", PATIENCE)) as teacher:
        description = teacher.describe()
        store = open_store(folder, description)
        pool = Pool(samples)
        wanted = pool.digests if rows is None else pool.digests[rows]
        verifier = Verifier.of(description, store)
        return fetch(teacher, description, store, verifier, pool, wanted, **options)


def _stored(stage, folder, samples):
    with stage.teacher() as teacher:
        return open_store(folder, teacher.describe()).answers(sample_digests(samples))


def test_answers_arrive_in_batches_and_are_those_of_the_service(stage, folder, samples):
    fetched = _fetch(stage, folder, samples, batch=16)
    assert (fetched.requests, fetched.samples, fetched.charged) == (4, 50, 50)
    assert [count for _, count in stage.service.calls] == [16, 16, 16, 2]
    assert stage.service.spent == 50 * PRICE
    answers = _stored(stage, folder, samples)
    for row, sample in enumerate(samples):
        key = hashlib.sha256(sample.numpy().tobytes()).digest()
        for tap, values in stage.service.stored[key].items():
            np.testing.assert_array_equal(answers[tap][row].numpy(), values[0])


def test_what_is_stored_is_never_asked_again(stage, folder, samples):
    _fetch(stage, folder, samples, rows=range(20))
    calls = len(stage.service.calls)
    again = _fetch(stage, folder, samples, rows=range(20))
    assert again.requests == 0
    assert len(stage.service.calls) == calls
    more = _fetch(stage, folder, samples, rows=range(30))
    assert more.samples == 10
    assert stage.service.spent == 30 * PRICE


def test_twins_are_asked_once(stage, folder, samples):
    twins = torch.cat([samples[:3], samples[:3]])
    assert _fetch(stage, folder, twins).samples == 3
    answers = _stored(stage, folder, twins)["hint"]
    np.testing.assert_array_equal(answers[:3].numpy(), answers[3:].numpy())


class _Crash(BaseException):
    """The client's process ends here."""


def test_a_crash_after_the_charge_and_before_the_reply_costs_nothing(stage, folder, samples):
    def vanish(context, response):
        context.abort(grpc.StatusCode.UNKNOWN, "the wire broke")

    stage.service.after = [vanish]
    with pytest.raises(TeacherError):
        _fetch(stage, folder, samples, rows=range(10))
    assert stage.service.spent == 10 * PRICE
    paid = dict(stage.service.stored)

    resumed = _fetch(stage, folder, samples, rows=range(10))
    assert resumed.samples == 10
    assert stage.service.spent == 10 * PRICE
    first, second = stage.service.calls
    assert first == second, "the same request id must come again"
    assert stage.service.draws == 10
    answers = _stored(stage, folder, samples[:10])["probabilities"]
    for row, values in enumerate(paid.values()):
        np.testing.assert_array_equal(answers[row].numpy(), values["probabilities"][0])


def test_a_crash_between_the_reply_and_the_disk_costs_nothing(stage, folder, samples, monkeypatch):
    def die(*_):
        raise _Crash

    with monkeypatch.context() as patch:
        patch.setattr(AnswerStore, "finish", die)
        with pytest.raises(_Crash):
            _fetch(stage, folder, samples, rows=range(10))
    assert _fetch(stage, folder, samples, rows=range(10)).samples == 10
    assert stage.service.calls[0] == stage.service.calls[1]
    assert stage.service.spent == 10 * PRICE


def test_the_request_is_on_disk_before_it_is_sent(stage, folder, samples):
    def look(context):
        pending.extend((folder / "requests").glob("*.json"))

    pending = []
    stage.service.before = [look]
    _fetch(stage, folder, samples, rows=range(4))
    assert [path.stem for path in pending] == [stage.service.calls[0][0]]


def test_an_interrupted_run_may_ask_for_other_samples_next(stage, folder, samples):
    def vanish(context, response):
        context.abort(grpc.StatusCode.UNKNOWN, "the wire broke")

    stage.service.after = [vanish]
    with pytest.raises(TeacherError):
        _fetch(stage, folder, samples, rows=range(10))
    fetched = _fetch(stage, folder, samples, rows=range(20, 25))
    assert fetched.samples == 15
    assert stage.service.spent == 15 * PRICE
    _stored(stage, folder, samples[:10])


def test_a_begun_request_of_other_data_is_kept_and_named(stage, folder, samples):
    stage.service.after = [lambda context, _: context.abort(grpc.StatusCode.UNKNOWN, "broken")]
    with pytest.raises(TeacherError):
        _fetch(stage, folder, samples[:10])
    with pytest.raises(UserError, match="not in the public part of this data set"):
        _fetch(stage, folder, samples[10:20])
    assert _fetch(stage, folder, samples[:10]).samples == 10


def test_a_restart_of_the_service_is_waited_for(stage, folder, samples):
    waits = []

    class Screen:
        def advance(self, samples, epsilon_spent):
            if samples and not waits:
                stage.stop()

        def wait(self, reason, seconds):
            waits.append(reason)
            if len(waits) == 2:
                stage.start()

    fetched = _fetch(stage, folder, samples, batch=10, progress=Screen())
    assert fetched.samples == 50
    assert stage.service.spent == 50 * PRICE
    assert "no teacher service answers at 127.0.0.1" in waits[0]


def test_patience_ends(stage, folder, samples):
    stage.service.before = [lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "busy")] * 99
    with pytest.raises(TeacherUnavailable):
        _fetch(stage, folder, samples, patience=0.5)
    assert stage.service.spent == 0
    stage.service.before.clear()
    assert _fetch(stage, folder, samples).samples == 50


def test_a_refused_budget_shows_what_was_asked_and_left_and_keeps_what_came(stage, folder, samples):
    stage.service.budget = 25 * PRICE
    with pytest.raises(BudgetRefused) as caught:
        _fetch(stage, folder, samples, batch=10)
    assert (caught.value.asked, caught.value.left) == (10 * PRICE, 5 * PRICE)
    assert "the ledger's answering budget does not cover this request" in str(caught.value)
    assert "asked 10,000, left 5,000" in str(caught.value)
    # The refused request is forgotten: the next run asks for what is affordable.
    assert _fetch(stage, folder, samples, rows=range(25), batch=10).samples == 5
    assert stage.service.spent == 25 * PRICE


def test_a_reply_after_the_deadline_is_asked_again_under_the_same_id(stage, folder, samples):
    def late(context, _):
        given_up = threading.Event()
        if context.add_callback(given_up.set):
            assert given_up.wait(PATIENCE)

    stage.service.after = [late]
    fetched = _fetch(stage, folder, samples, rows=range(5), deadline=3.0)
    assert fetched.samples == 5
    assert len({request_id for request_id, _ in stage.service.calls}) == 1
    # More than two where the second one was slow by itself.
    assert len(stage.service.calls) >= 2
    assert stage.service.spent == 5 * PRICE


def test_another_teacher_key_or_ledger_never_answers_into_the_same_store(stage, folder, samples):
    _fetch(stage, folder, samples, rows=range(5))
    right = stage.service.key
    stage.service.key = Ed25519PrivateKey.generate()
    with pytest.raises(UserError, match="its public key changed"):
        _fetch(stage, folder, samples)
    stage.service.key, stage.service.ledger_id = right, "b" * 32
    with pytest.raises(UserError, match="its ledger id changed"):
        _fetch(stage, folder, samples)
    stage.service.ledger_id, stage.service.version = "a" * 32, "e" * 32
    with pytest.raises(UserError, match=f"not of teacher {'e' * 32}"):
        _fetch(stage, folder, samples)
    assert stage.service.spent == 5 * PRICE


def test_an_answer_with_a_false_receipt_stays_out_of_the_store(stage, folder, samples):
    def forge(context, response):
        response.receipt = response.receipt.replace(b'"charge":5000', b'"charge":4000')

    stage.service.after = [forge]
    with pytest.raises(AnswerRejected, match="not to be trusted"):
        _fetch(stage, folder, samples, rows=range(5))
    with stage.teacher() as teacher:
        store = open_store(folder, teacher.describe())
    assert len(store) == 0
    assert len(store.pending()) == 1


def test_batches_fit_the_service_and_the_wire(stage):
    with stage.teacher() as teacher:
        description = teacher.describe()
    assert batch_size(description, 64) == 64
    assert batch_size(description, 1000) == 256
    stage.service.shape, stage.service.max_samples = (3, 1024, 1024), 10_000
    with stage.teacher() as teacher:
        assert batch_size(teacher.describe(), 64) == 2
    stage.service.shape = (3, 4096, 4096)
    with stage.teacher() as teacher, pytest.raises(UserError, match="does not fit"):
        batch_size(teacher.describe(), 64)
    with pytest.raises(UserError, match="--query-batch is 0"):
        batch_size(description, 0)


def test_behind_the_teacher_protocol_answers_are_paid_once(stage, folder, samples):
    with stage.teacher() as teacher:
        description = teacher.describe()
        store = open_store(folder, description)
        paid = FetchingTeacher(teacher, description, store, Verifier.of(description, store))
        assert {name: tap.shape for name, tap in paid.taps.items()} == {
            "probabilities": (10,),
            "hint": (8,),
        }
        first = paid.answer(samples[:7])
        second = paid.answer(samples[3:10])
    assert torch.equal(first["hint"][3:], second["hint"][:4])
    assert stage.service.spent == 10 * PRICE


def test_some_taps_are_paid_alone_and_the_others_when_they_are_asked(stage, folder, samples):
    hint, probabilities = 100, 900
    _fetch(stage, folder, samples, rows=range(20), taps=["hint"])
    assert stage.service.spent == 20 * hint
    # Ten of these have their hint already: they are asked for the rest alone.
    fetched = _fetch(stage, folder, samples, rows=range(10, 30))
    assert fetched.samples == 20
    assert stage.service.asked == [("hint",), ("probabilities",), ()]
    assert stage.service.spent == 20 * hint + 10 * probabilities + 10 * PRICE
    with stage.teacher() as teacher:
        store = open_store(folder, teacher.describe())
    answers = store.answers(sample_digests(samples[10:30]))
    hints = store.answers(sample_digests(samples[:20]), ["hint"])
    for row, sample in enumerate(samples[:30]):
        drawn = stage.service.stored[hashlib.sha256(sample.numpy().tobytes()).digest()]
        if row < 20:
            np.testing.assert_array_equal(hints["hint"][row].numpy(), drawn["hint"][0])
        if row >= 10:
            for tap, values in answers.items():
                np.testing.assert_array_equal(values[row - 10].numpy(), drawn[tap][0])
    again = _fetch(stage, folder, samples, rows=range(10, 30))
    assert again.requests == 0


@pytest.mark.parametrize("next_taps", [["hint"], ["probabilities"], ["probabilities", "hint"]])
def test_a_request_cut_off_is_finished_with_the_taps_it_was_begun_with(
    stage, folder, samples, next_taps
):
    def vanish(context, response):
        context.abort(grpc.StatusCode.UNKNOWN, "the wire broke")

    stage.service.after = [vanish]
    with pytest.raises(TeacherError):
        _fetch(stage, folder, samples, rows=range(10), taps=["hint"])
    assert stage.service.spent == 10 * 100
    _fetch(stage, folder, samples, rows=range(10), taps=next_taps)
    assert stage.service.calls[0] == stage.service.calls[1]
    assert stage.service.asked[:2] == [("hint",), ("hint",)]
    more = 10 * 900 if "probabilities" in next_taps else 0
    assert stage.service.spent == 10 * 100 + more
    assert len(stage.service.calls) == (3 if more else 2)


def test_a_service_that_charges_for_taps_that_were_not_asked_is_not_believed(
    stage, folder, samples, monkeypatch
):
    def settle(self, request_id, samples, taps, context):
        return original(self, request_id, samples, (), context)

    original = type(stage.service)._settle
    monkeypatch.setattr(type(stage.service), "_settle", settle)
    with pytest.raises(AnswerRejected, match="published were at most 1,000"):
        _fetch(stage, folder, samples, rows=range(10), taps=["hint"])


def test_behind_the_teacher_protocol_some_taps_are_asked(stage, folder, samples):
    with stage.teacher() as teacher:
        some = FetchingTeacher.open(teacher, folder, asks=["hint"])
        assert list(some.taps) == list(some.answer(samples[:5])) == ["hint"]
        assert stage.service.spent == 5 * 100
        with pytest.raises(UserError, match="no attention; it answers probabilities, hint"):
            FetchingTeacher.open(teacher, folder, asks=["attention"])
