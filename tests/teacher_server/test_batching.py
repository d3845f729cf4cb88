"""Requests of many clients in one batch: each keeps its own meaning, charge and fate."""

import asyncio
import gc
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from privacy.errors import BudgetExhausted, LedgerFault, RequestIdReused
from privacy.ledger import Ledger
from privacy.noise import DEFAULT_NOISE, source
from teacher_server.answering import Answer, Answerer, Question
from teacher_server.batching import Batcher, Errand, Pace
from teacher_server.desk import Desk
from teacher_server.observer import Observer
from tests.privacy.ledger.gathering import PATIENCE
from tests.teacher_server.running_service import CHARGE, MENU, StandInTeacher, images


@dataclass
class Gated(StandInTeacher):
    """A teacher that answers when the test lets it; tells the sizes of the batches it got."""

    gate: threading.Event = field(default_factory=threading.Event)
    busy: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    sizes: list[int] = field(default_factory=list)

    def answers(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        with self.lock:
            self.sizes.append(len(samples))
        self.busy.release()
        assert self.gate.wait(PATIENCE)
        return super().answers(samples)


class Notes(Observer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.groups: list[int] = []

    def computed(self, requests: int, samples: int, seconds: float) -> None:
        self.batches.append((requests, samples))

    def settled(self, requests: int, seconds: float) -> None:
        self.groups.append(requests)


@dataclass
class Office:
    """A batcher at work in an event loop of its own."""

    ledger: Ledger
    batcher: Batcher
    desk: Desk
    loop: asyncio.AbstractEventLoop
    notes: Notes

    def ask(
        self, samples: np.ndarray, client: str = "anna", request_id: str | None = None
    ) -> Errand:
        """Admits a request; `result` waits for its answer."""
        question = Question(client, request_id or str(uuid.uuid4()), samples)

        async def admit() -> Errand:
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            deadline = asyncio.get_running_loop().time() + 10 * PATIENCE
            errand = Errand(client, len(samples), deadline, question=question, future=future)
            self.desk.admit(errand)
            return errand

        return asyncio.run_coroutine_threadsafe(admit(), self.loop).result(PATIENCE)

    def result(self, errand: Errand) -> Answer:
        async def wait() -> Answer:
            return await errand.future

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result(PATIENCE)


@contextmanager
def office(ledger: Ledger, teacher: StandInTeacher, **pace: Any) -> Iterator[Office]:
    answerer = Answerer(teacher, "0" * 32, MENU, ledger, source(DEFAULT_NOISE))
    desk, notes, loop = Desk(1000), Notes(), asyncio.new_event_loop()
    batcher = Batcher(desk, answerer, Pace(**{"workers": 1, "batch": 8} | pace), notes)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(_started(batcher), loop).result(PATIENCE)
    try:
        yield Office(ledger, batcher, desk, loop, notes)
    finally:
        if isinstance(teacher, Gated):
            teacher.gate.set()
        batcher.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def _started(batcher: Batcher) -> None:
    batcher.start()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_what_waits_is_answered_together(ledger, opened):
    teacher = Gated()
    at_work = opened.enter_context(office(ledger, teacher))
    first = at_work.ask(images(1))
    assert teacher.busy.acquire(timeout=PATIENCE)
    rest = [at_work.ask(images(1, seed), client=f"client-{seed}") for seed in range(1, 13)]
    teacher.gate.set()
    answers = [at_work.result(errand) for errand in [first, *rest]]
    # The lone first does not wait for company; then as many as a batch holds.
    assert teacher.sizes == [1, 8, 4]
    assert at_work.notes.batches == [(1, 1), (8, 8), (4, 4)]
    assert sorted(answer.receipt.entry for answer in answers) == list(range(1, 14))
    assert [answer.charged_samples for answer in answers] == [1] * 13
    assert ledger.budget("client-7").client_spent == CHARGE


def test_a_batch_answers_as_its_requests_would_alone(ledger):
    """Noise apart: the mean of many draws is the teachers' answer to that very sample."""
    asked = Answerer(StandInTeacher(), "0" * 32, MENU, ledger, source(DEFAULT_NOISE))
    samples = [images(3, 1), images(1, 2), images(2, 3)]
    questions = [Question("anna", str(uuid.uuid4()), part) for part in samples]
    outcomes = asked.settle([asked.draw(questions[:2]), asked.draw(questions[2:])])
    for part, outcome in zip(samples, outcomes, strict=True):
        assert isinstance(outcome, Answer)
        exact = StandInTeacher().answers(part)
        for tap in MENU:
            error = outcome.taps[tap.name] - exact[tap.name][0]
            # Clipping leaves these values as they are; 8 standard deviations of the noise.
            assert outcome.taps[tap.name].shape == (len(part), *tap.shape)
            assert np.abs(error).max() < 8 * tap.release.noise_sd


def test_a_sample_that_two_ask_about_is_drawn_and_charged_once(ledger, opened):
    teacher = Gated()
    at_work = opened.enter_context(office(ledger, teacher))
    first = at_work.ask(images(1))
    assert teacher.busy.acquire(timeout=PATIENCE)
    same = [at_work.ask(images(2, 5), client=name) for name in ("anna", "bert", "cora")]
    teacher.gate.set()
    at_work.result(first)
    answers = [at_work.result(errand) for errand in same]
    assert teacher.answered == 1 + 2
    for tap in MENU:
        for answer in answers[1:]:
            assert np.array_equal(answer.taps[tap.name], answers[0].taps[tap.name])
    assert sorted(answer.charged_samples for answer in answers) == [0, 0, 2]
    assert ledger.budget(None).spent == 3 * CHARGE


def test_a_refusal_is_nobody_elses(ledger):
    ledger.set_cap("bert", CHARGE)
    asked = Answerer(StandInTeacher(), "0" * 32, MENU, ledger, source(DEFAULT_NOISE))
    used = str(uuid.uuid4())
    asked.answer("anna", used, images(1, 9))
    outcomes = asked.settle(
        [
            asked.draw(
                [
                    Question("bert", str(uuid.uuid4()), images(2, 1)),
                    Question("anna", used, images(1, 2)),
                    Question("anna", used, images(1, 9)),
                    Question("anna", str(uuid.uuid4()), images(2, 1)),
                ]
            )
        ]
    )
    assert isinstance(outcomes[0], BudgetExhausted)
    assert isinstance(outcomes[1], RequestIdReused)
    assert isinstance(outcomes[2], Answer)
    assert isinstance(outcomes[3], Answer)
    assert [outcomes[2].charged_samples, outcomes[3].charged_samples] == [0, 2]
    assert ledger.budget(None).spent == 3 * CHARGE


def test_the_last_of_a_budget_is_settled_once(ledger):
    """Each of two requests is covered alone; together they are not: one is refused."""
    ledger.set_cap("bert", 3 * CHARGE)
    asked = Answerer(StandInTeacher(), "0" * 32, MENU, ledger, source(DEFAULT_NOISE))
    pair = [Question("bert", str(uuid.uuid4()), images(2, seed)) for seed in (1, 2)]
    outcomes = asked.settle([asked.draw(pair)])
    assert [type(outcome) for outcome in outcomes] == [Answer, BudgetExhausted]
    assert ledger.budget("bert").client_spent == 2 * CHARGE


def test_a_teacher_that_raises_ends_its_batch_and_no_worker(ledger, opened):
    teacher = StandInTeacher()
    at_work = opened.enter_context(office(ledger, teacher))

    def fail(_: object) -> dict[str, np.ndarray]:
        raise FloatingPointError("0.123456")

    teacher.sabotage = fail
    with pytest.raises(FloatingPointError):
        at_work.result(at_work.ask(images(1)))
    teacher.sabotage = lambda taps: taps
    assert at_work.result(at_work.ask(images(1))).charged_samples == 1
    assert at_work.batcher.working
    assert ledger.budget(None).spent == CHARGE


@pytest.mark.parametrize("kind", [StopIteration, SystemExit, KeyboardInterrupt])
def test_whatever_a_teacher_raises_ends_its_batch(ledger, opened, kind):
    teacher = StandInTeacher()
    at_work = opened.enter_context(office(ledger, teacher))

    def fail(_: object) -> dict[str, np.ndarray]:
        raise kind("0.123456")

    teacher.sabotage = fail
    errands = [at_work.ask(images(1, seed)) for seed in range(2)]
    for errand in errands:
        with pytest.raises(RuntimeError, match=f"^raised {kind.__name__}$"):
            at_work.result(errand)
    assert at_work.batcher.working


def test_a_refusal_that_nobody_waits_for_is_no_fault(ledger, opened):
    teacher, said = StandInTeacher(), []
    at_work = opened.enter_context(office(ledger, teacher))
    at_work.loop.set_exception_handler(lambda _, context: said.append(context["message"]))

    def fail(_: object) -> dict[str, np.ndarray]:
        raise FloatingPointError

    teacher.sabotage = fail
    errand = at_work.ask(images(1))
    end = time.monotonic() + PATIENCE
    while not errand.future.done():
        assert time.monotonic() < end
        time.sleep(0.01)
    del errand
    teacher.sabotage = lambda taps: taps
    # Now the worker has let go of the first, too.
    at_work.result(at_work.ask(images(1)))
    gc.collect()
    assert said == []


def test_a_ledger_that_fails_releases_nothing(ledger, opened, monkeypatch):
    at_work = opened.enter_context(office(ledger, StandInTeacher()))

    def fail(_: object) -> None:
        raise LedgerFault("no disk")

    monkeypatch.setattr(ledger, "settle_all", fail)
    errands = [at_work.ask(images(1, seed)) for seed in range(3)]
    for errand in errands:
        with pytest.raises(LedgerFault):
            at_work.result(errand)
    assert at_work.batcher.working


def test_nothing_is_done_for_a_caller_that_has_gone(ledger, opened):
    teacher = Gated()
    at_work = opened.enter_context(office(ledger, teacher))
    first = at_work.ask(images(1))
    assert teacher.busy.acquire(timeout=PATIENCE)
    gone, stays = at_work.ask(images(2, 1)), at_work.ask(images(3, 2))
    assert at_work.desk.leave(gone)
    teacher.gate.set()
    at_work.result(first)
    assert at_work.result(stays).charged_samples == 3
    assert teacher.sizes == [1, 3]
    assert ledger.budget(None).spent == 4 * CHARGE


def test_a_charge_under_way_is_not_stopped_by_a_caller_that_goes_away(ledger, opened):
    teacher = Gated()
    at_work = opened.enter_context(office(ledger, teacher))
    gone = at_work.ask(images(2))
    assert teacher.busy.acquire(timeout=PATIENCE)
    at_work.loop.call_soon_threadsafe(gone.future.cancel)
    assert not at_work.desk.leave(gone)
    teacher.gate.set()
    again = at_work.result(at_work.ask(images(2), request_id=gone.question.request_id))
    assert again.charged_samples == 0
    assert ledger.budget(None).spent == 2 * CHARGE
    assert gone.future.cancelled()


def test_of_what_was_answered_nothing_is_left_to_collect(ledger, opened):
    at_work = opened.enter_context(office(ledger, StandInTeacher()))
    errand = at_work.ask(images(1))
    at_work.result(errand)
    kept = weakref.ref(errand)
    del errand
    gc.disable()
    try:
        # The threads let go of it once they have the next.
        at_work.result(at_work.ask(images(1, 1)))
        end = time.monotonic() + PATIENCE
        while kept() is not None:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        gc.enable()


def test_the_teacher_works_while_a_batch_is_settled(ledger, opened, monkeypatch):
    """The second batch is computed while the first waits for the disk."""
    teacher, disk = Gated(), threading.Event()
    teacher.gate.set()
    settle = ledger.settle_all

    def slowly(requests: Any) -> Any:
        assert disk.wait(PATIENCE)
        return settle(requests)

    monkeypatch.setattr(ledger, "settle_all", slowly)
    at_work = opened.enter_context(office(ledger, teacher))
    errands = [at_work.ask(images(8, 1))]
    assert teacher.busy.acquire(timeout=PATIENCE)
    errands.append(at_work.ask(images(8, 2)))
    assert teacher.busy.acquire(timeout=PATIENCE)
    assert not any(errand.future.done() for errand in errands)
    disk.set()
    assert [at_work.result(errand).charged_samples for errand in errands] == [8, 8]


def test_as_many_batches_at_once_as_there_are_workers(ledger, opened):
    teacher = Gated()
    at_work = opened.enter_context(office(ledger, teacher, workers=2))
    errands = [at_work.ask(images(8, seed)) for seed in range(4)]
    assert teacher.busy.acquire(timeout=PATIENCE)
    assert teacher.busy.acquire(timeout=PATIENCE)
    assert len(teacher.sizes) == 2
    teacher.gate.set()
    for errand in errands:
        at_work.result(errand)
    assert teacher.sizes == [8] * 4


def test_stopping_answers_what_was_admitted(ledger):
    teacher = Gated()
    with office(ledger, teacher) as at_work:
        errands = [at_work.ask(images(4, seed)) for seed in range(6)]
        assert teacher.busy.acquire(timeout=PATIENCE)
    # Stopped by now: every future was resolved before the loop ended.
    assert all(errand.future.done() for errand in errands)
    assert ledger.budget(None).spent == 24 * CHARGE
