"""What must have happened before an answer exists for anybody else."""

import uuid
from collections.abc import Callable
from functools import partial

import numpy as np

from privacy.accounting import SIGMA
from privacy.ledger import Ledger
from privacy.noise import DEFAULT_NOISE, source
from teacher_server.answering import Answer, Answerer, PrivateTeacher
from tests.privacy.ledger.gathering import Gathering
from tests.teacher_server.running_service import CHARGE, MENU, StandInTeacher, images


def answerer(ledger: Ledger, teacher: PrivateTeacher | None = None) -> Answerer:
    return Answerer(teacher or StandInTeacher(), "0" * 32, MENU, ledger, source(DEFAULT_NOISE))


def requests(asked: Answerer, count: int) -> list[Callable[[], Answer]]:
    """So many requests of two samples each, none of which another one has."""
    return [
        partial(asked.answer, "anna", str(uuid.uuid4()), images(2, seed)) for seed in range(count)
    ]


def test_what_returns_is_durable_already(ledger, tmp_path):
    """A second connection sees charge, answers and entry as soon as the caller has them."""
    answer = answerer(ledger).answer("anna", str(uuid.uuid4()), images(3))
    with Ledger.open(
        tmp_path / "ledger", witness=tmp_path / "witness" / "head.json", read_only=True
    ) as reader:
        assert reader.budget("anna").client_spent == 3 * CHARGE
        last = list(reader.entries())[-1]
    assert (last.number, last.hash()) == (answer.receipt.entry, answer.receipt.entry_hash)
    assert answer.receipt.charge == 3 * CHARGE


def test_requests_that_come_during_a_commit_settle_together(ledger, monkeypatch):
    gathering = Gathering(ledger, monkeypatch)
    futures = gathering.run(*requests(answerer(ledger), 8))
    assert [future.result().receipt.entry for future in futures] == list(range(1, 9))
    # Two transactions: the one that was held up, and the one of all seven behind it.
    assert gathering.heads == [1, 8]
    assert ledger.budget(None).spent == 16 * CHARGE


def test_no_two_requests_share_noise(ledger):
    """Two samples that the teachers answer alike: the difference of the answers has the noise of
    both, in every value."""
    first, second = (
        answerer(ledger).answer("anna", str(uuid.uuid4()), samples) for samples in _alike()
    )
    for tap in MENU:
        one, other = first.taps[tap.release.name], second.taps[tap.release.name]
        # P(two draws are equal) < 1/(2σ√π) < 2^-21 each: a few hundred, so at most 1e-4 that one
        # is; 16 of them by chance, under 1e-80.
        assert np.count_nonzero(one == other) < 16
        step = tap.release.noise_sd / SIGMA
        deviation = float((one - other).std()) / (step * SIGMA)
        # √2 with a standard error below 0.05 for the 256·2 values and more.
        assert abs(deviation - 2**0.5) < 0.5


def _alike() -> tuple[np.ndarray, np.ndarray]:
    """Two batches without a common sample, answered alike by the stand-in teacher."""
    one = np.zeros((256, 1, 4, 4), dtype=np.uint8)
    # The stand-in looks at the first two values and at the sum modulo the classes.
    one[:, 0, 3] = np.array(
        [[n // 64, n // 16 % 4, n // 4 % 4, n % 4] for n in range(256)], dtype=np.uint8
    )
    other = one.copy()
    other[:, 0, 2, 0] = len(MENU) + 1
    return one, other
