"""Several requests under way at once: stored as with one, paid for once, whatever breaks in."""

import os
import signal
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import torch

from ktan.answers import AnswerStore
from ktan.digests import sample_digests
from ktan.errors import UserError
from student_client.errors import BudgetRefused, TeacherError, TeacherUnavailable
from student_client.fetching import FetchingTeacher, Pool, fetch
from student_client.pin import open_store
from student_client.progress import Silent
from student_client.verification import Verifier
from tests.student_client.commands import PRICE, QUERIES

PATIENCE = 120.0
SAMPLES = 48
BATCH = 8


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (SAMPLES, 1, 28, 28), generator=generator).to(torch.uint8)


def _fetch(stage, folder, samples, in_flight=4, rows=None, **options):
    with stage.teacher(patience=PATIENCE, deadline=PATIENCE) as teacher:
        description = teacher.describe()
        store = open_store(folder, description)
        pool, verifier = Pool(samples), Verifier.of(description, store)
        wanted = pool.digests if rows is None else pool.digests[rows]
        return fetch(
            teacher, description, store, verifier, pool, wanted,
            batch=BATCH, in_flight=in_flight, **options,
        )  # fmt: skip


def _ids(stage):
    return [request_id for request_id, _ in stage.service.calls]


class Held:
    """A hook that holds calls until they are let go, or until their caller has gone."""

    def __init__(self):
        self.came = threading.Semaphore(0)
        self.released = threading.Event()

    def __call__(self, context, response=None):
        if not context.add_callback(self.released.set):
            self.released.set()
        self.came.release()
        assert self.released.wait(PATIENCE)

    def wait_for(self, calls):
        for _ in range(calls):
            assert self.came.acquire(timeout=PATIENCE)


def test_as_many_as_were_said_are_under_way(stage, folder, samples):
    together, lock, under_way, most = threading.Barrier(3), threading.Lock(), 0, 0

    def come(context):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(PATIENCE)

    def go(context, response):
        nonlocal under_way
        with lock:
            under_way -= 1

    stage.service.before, stage.service.after = [come] * 6, [go] * 6
    fetched = _fetch(stage, folder, samples, in_flight=3)
    assert (fetched.requests, fetched.samples, fetched.charged) == (6, SAMPLES, SAMPLES)
    assert most == 3


def _answer(samples):
    """A function of the sample alone, so that two runs can be compared."""
    flat = samples.reshape(len(samples), -1).astype(np.float32)
    return {"probabilities": flat[:, :10], "hint": flat[:, 10:18]}


class Spent(Silent):
    def __init__(self):
        self.seen = []

    def advance(self, samples, epsilon_spent):
        self.seen.append(epsilon_spent)


def test_out_of_order_they_leave_what_one_at_a_time_leaves(stage, tmp_path, samples, new_service):
    last = threading.Semaphore(0)

    def overtaken(context, response):
        for _ in range(3):
            assert last.acquire(timeout=PATIENCE)

    stage.service.answer = _answer
    # The first one is charged first, and answered after three others.
    stage.service.after = [overtaken] + [lambda *_: last.release()] * 5
    screen = Spent()
    several = _fetch(stage, tmp_path / "several", samples, progress=screen)
    assert screen.seen == sorted(screen.seen)
    spent = stage.service.spent

    stage.service = new_service(answer=_answer, key=stage.service.key)
    stage.stop()
    stage.start()
    assert _fetch(stage, tmp_path / "one", samples, in_flight=1) == several
    assert stage.service.spent == spent == SAMPLES * PRICE
    kept = {}
    for name in ("several", "one"):
        store = AnswerStore.open(tmp_path / name, read_only=True)
        answers = store.answers(sample_digests(samples))
        charges = sorted(receipt["charge"] for receipt in store.receipts())
        asked = {
            frozenset(row.tobytes() for row in chunk.arrays["digests"])
            for chunk in store._held._loose.values()
        }
        kept[name] = answers, charges, asked, len(store), store.pending()
    assert kept["several"][1:] == kept["one"][1:]
    for tap, values in kept["one"][0].items():
        assert torch.equal(values, kept["several"][0][tap])


def test_a_late_first_receipt_is_no_contradiction(stage, folder, samples):
    """The receipt of entry 1 is verified after those of 2 to 4, in this run and by the next."""
    held = Held()
    stage.service.after = [held]
    thread = threading.Thread(target=lambda: held.wait_for(1) or _release(held, folder, 5))
    thread.start()
    _fetch(stage, folder, samples)
    thread.join(PATIENCE)
    with stage.teacher() as teacher:
        description = teacher.describe()
    store = open_store(folder, description)
    assert sorted(receipt["entry"] for receipt in store.receipts()) == [1, 2, 3, 4, 5, 6]


def _release(held, folder, stored):
    """Lets go once so many requests' answers are on disk."""
    _until(lambda: len(list((folder / "chunks").glob("*.safetensors"))) >= stored)
    held.released.set()


def _until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


_CLIENT = """
import sys, torch
from pathlib import Path
from student_client.connection import Connection
from student_client.fetching import Pool, fetch
from student_client.pin import open_store
from student_client.remote import RemoteTeacher
from student_client.verification import Verifier

address, folder, samples = sys.argv[1:]
pool = Pool(torch.load(samples))
with RemoteTeacher(address, Connection(plaintext=True)) as teacher:
    description = teacher.describe()
    store = open_store(Path(folder), description)
    verifier = Verifier.of(description, store)
    fetch(teacher, description, store, verifier, pool, pool.digests, batch=8, in_flight=4)
"""


def test_killed_with_several_under_way_nothing_is_paid_twice(stage, folder, samples, tmp_path):
    held = Held()
    # One is answered; of the next four some are charged and others not when the client dies.
    stage.service.before = [lambda _: None] * 3 + [held, held]
    stage.service.after = [lambda *_: None, held, held]
    torch.save(samples, tmp_path / "samples.pt")
    client = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, stage.address, folder, tmp_path / "samples.pt"]
    )
    try:
        held.wait_for(4)
    finally:
        client.kill()
        client.wait(PATIENCE)
    assert held.released.wait(PATIENCE)
    begun = {path.stem for path in (folder / "requests").glob("*.json")}
    assert len(begun) in (4, 5)
    before = set(_ids(stage))
    stage.service.before, stage.service.after = [], []
    again = _fetch(stage, folder, samples)
    assert stage.service.spent == SAMPLES * PRICE
    assert stage.service.draws == SAMPLES
    assert begun <= set(_ids(stage)[len(before) :])
    assert len(set(_ids(stage))) == SAMPLES // BATCH
    assert again.samples in (SAMPLES - BATCH, SAMPLES)
    store = AnswerStore.open(folder, read_only=True)
    assert not store.pending()
    drawn = stage.service.stored.values()
    hints = {row.tobytes() for row in store.answers(sample_digests(samples))["hint"].numpy()}
    assert hints == {taps["hint"][0].tobytes() for taps in drawn}


def test_a_budget_that_ends_among_several_refuses_as_with_one(stage, folder, samples):
    together = threading.Barrier(4)
    stage.service.before = [lambda _: together.wait(PATIENCE)] * 4
    stage.service.budget = (2 * BATCH + 3) * PRICE
    with pytest.raises(BudgetRefused) as caught:
        _fetch(stage, folder, samples)
    assert (caught.value.asked, caught.value.left) == (BATCH * PRICE, 3 * PRICE)
    # What was paid for is here; what was refused is forgotten.
    assert stage.service.spent == 2 * BATCH * PRICE
    store = AnswerStore.open(folder, read_only=True)
    assert len(store) == 2 * BATCH
    assert not list((folder / "requests").iterdir())
    (lacking,) = np.nonzero(store.missing(sample_digests(samples)))
    assert _fetch(stage, folder, samples, rows=lacking[:3]).charged == 3


def test_what_is_under_way_when_another_one_fails_is_stored(stage, folder, samples):
    together, held = threading.Barrier(4), Held()

    def broken(context, response):
        held.wait_for(3)
        context.add_callback(held.released.set)
        context.abort(grpc.StatusCode.UNKNOWN, "the wire broke")

    stage.service.before = [lambda _: together.wait(PATIENCE)] * 4
    stage.service.after = [broken, held, held, held]
    with pytest.raises(TeacherError, match="the wire broke"):
        _fetch(stage, folder, samples)
    store, sent = AnswerStore.open(folder, read_only=True), len(stage.service.calls)
    assert len(store.pending()) == 1
    assert len(store) == (sent - 1) * BATCH
    assert _fetch(stage, folder, samples).samples == SAMPLES - len(store)
    assert stage.service.spent == SAMPLES * PRICE


def test_what_an_earlier_run_began_goes_at_once_too(stage, folder, samples):
    together = threading.Barrier(4)
    broken = [lambda context, _: context.abort(grpc.StatusCode.UNKNOWN, "broken")] * 4
    stage.service.before, stage.service.after = [lambda _: together.wait(PATIENCE)] * 4, broken
    with pytest.raises(TeacherError):
        _fetch(stage, folder, samples)
    begun = _ids(stage)
    stage.service.before = [lambda _: together.wait(PATIENCE)] * 4
    _fetch(stage, folder, samples)
    assert set(_ids(stage)[4:8]) == set(begun)
    assert stage.service.spent == SAMPLES * PRICE


def test_ctrl_c_keeps_what_came_and_breaks_off_the_rest(train, stage, tmp_path):
    together, held = threading.Barrier(3), Held()
    chunks, requests = (tmp_path / "run/answers" / part for part in ("chunks", "requests"))

    def interrupt(context, response):
        # Answers are on disk for a moment before their request is gone.
        _until(lambda: list(chunks.glob("*.safetensors")) and len(list(requests.iterdir())) == 2)
        os.kill(os.getpid(), signal.SIGINT)
        held(context)

    stage.service.before = [lambda _: together.wait(PATIENCE)] * 3
    stage.service.after = [lambda *_: None, interrupt, held]
    began = time.monotonic()
    code, out, _ = train("--yes", "--in-flight", "3")
    assert code == 130
    # Broken off, and not waited for until the deadline.
    assert held.released.is_set()
    assert time.monotonic() - began < 100
    (kept,) = chunks.iterdir()
    assert "of 24 answers are stored in" in out
    begun = {path.stem for path in requests.iterdir()}
    assert len(begun) == 2
    code, out, _ = train("--yes", "--resume", "--in-flight", "2")
    assert code == 0
    assert set(_ids(stage)[3:]) == begun
    assert len(set(_ids(stage))) == 3
    assert kept.stem in _ids(stage)
    assert stage.service.spent == QUERIES * PRICE


def test_patience_ends_for_all_together(stage, folder, samples):
    stage.service.before = [
        lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
    ] * 200
    with (
        stage.teacher(patience=0.4) as teacher,
        pytest.raises(TeacherUnavailable),
    ):
        FetchingTeacher.open(teacher, folder).answer(samples)
    assert stage.service.spent == 0
    stage.service.before.clear()
    assert _fetch(stage, folder, samples).samples == SAMPLES


@pytest.mark.parametrize("in_flight", [0, -1])
def test_none_at_all_cannot_be(stage, folder, samples, train, in_flight):
    with pytest.raises(UserError, match=f"--in-flight is {in_flight}; it must be at least 1"):
        _fetch(stage, folder, samples, in_flight=in_flight)
    code, _, err = train("--yes", "--in-flight", in_flight)
    assert (code, stage.service.calls) == (2, [])
    assert "--in-flight is" in err
