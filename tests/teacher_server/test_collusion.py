"""Two colluding clients, each query chosen from all earlier answers, against the exact bound.

Everything is real but the networks: the Answerer, the release with its secret noise, the durable
ledger. Whole interactions are run to refusal in two adjacent worlds that differ in one shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, norm

from privacy import gaussian
from privacy.accounting import mu_of_units
from privacy.budget import BudgetPlan, open_plan
from privacy.calibration import radii
from privacy.errors import BudgetExhausted
from privacy.ledger import Ledger
from privacy.noise import source
from privacy.release import TapRelease
from teacher_server.answering import Answerer
from teacher_server.menu import ServedTap

# In each ledger the colluders split the budget over VICTIMS blocks of ROUNDS answers. The blocks
# have independent noise, so that each is one trial of a distinguisher; a block's μ is about 2.
LEDGERS, VICTIMS, ROUNDS = 20, 200, 4
TRIALS = LEDGERS * VICTIMS
TEACHERS = 3

# Two Clopper-Pearson bounds, each wrong once in 2·10⁷ runs.
ALPHA = 5e-8


def direction(samples: np.ndarray) -> np.ndarray:
    """The unit vector [n, 2] that a sample asks along: its last byte is an angle."""
    angle = samples[:, -1] * (2.0 * np.pi / 256.0)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


class WorstTeacher:
    """The worst adjacent pair that the proof allows: one shard answers ±B in the asked direction.

    The other shards answer something fixed, which the colluders know.
    """

    others = np.array([[0.3, -0.4], [1e9, 1e9]])

    def __init__(self, world: int):
        self._sign = 1.0 if world else -1.0

    def answers(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        known = np.repeat(self.others[:, np.newaxis], len(samples), axis=1)
        return {"hint": np.concatenate([self._sign * direction(samples)[np.newaxis], known])}


class Colluders:
    """Two clients that share all they see; each owns every second block."""

    def __init__(self, answerer: Answerer, known: np.ndarray):
        self._answerer = answerer
        self._known = known
        self.evidence = np.zeros(VICTIMS)
        self._angles = np.zeros(VICTIMS, dtype=np.uint8)
        self._asked = 0

    def samples(self, blocks: np.ndarray) -> np.ndarray:
        """A fresh sample for each block, at the angle that it asks next: uint8 [n, 8]."""
        self._asked += 1
        rows = np.zeros((len(blocks), 8), dtype=np.uint8)
        rows[:, 0], rows[:, 1], rows[:, 2] = blocks % 256, blocks // 256, self._asked
        rows[:, -1] = self._angles[blocks]
        return rows

    def ask(self, client: str, blocks: np.ndarray, samples: np.ndarray) -> np.ndarray:
        request = f"{client}/{samples[0].tobytes().hex()}"
        return self._answerer.answer(client, request, samples).taps["hint"]

    def round(self, pool: ThreadPoolExecutor) -> None:
        """Both ask at once; then both learn both answers, and choose the next queries by them."""
        halves = np.arange(0, VICTIMS, 2), np.arange(1, VICTIMS, 2)
        samples = [self.samples(half) for half in halves]
        answers = list(pool.map(self.ask, ("ann", "bob"), halves, samples))
        rest = np.zeros((VICTIMS, 2))
        for half, asked, answer in zip(halves, samples, answers, strict=True):
            rest[half] = answer - self._known
            self.evidence[half] += (rest[half] * direction(asked)).sum(axis=1)
        # Each block asks next along what its *neighbour's* owner has just been told.
        turned = np.roll(rest, 1, axis=0)
        angle = np.arctan2(turned[:, 1], turned[:, 0]) / (2.0 * np.pi) * 256.0
        self._angles = np.round(angle).astype(np.int64).astype(np.uint8)


@pytest.fixture(scope="module")
def plan() -> BudgetPlan:
    # ε in the hundreds, so that one ledger pays for many trials.
    plan = open_plan(500.0, 1e-5, draws=2 * VICTIMS * ROUNDS)
    assert plan.mu_max == pytest.approx(gaussian.mu(500.0, 1e-5), rel=1e-3)
    return plan


@pytest.fixture(scope="module")
def tap(plan: BudgetPlan) -> TapRelease:
    grid = radii(plan.answer_units, VICTIMS * ROUNDS, {"hint": 1.0}, {"hint": "hint"})
    return TapRelease("hint", "hint", 2, 1.0, grid["hint"], TEACHERS)


def interactions(
    folder: Path, plan: BudgetPlan, tap: TapRelease, world: int
) -> Iterator[np.ndarray]:
    """The colluders' evidence [VICTIMS] of each whole interaction, its limits checked."""
    bounded = WorstTeacher.others / np.maximum(
        1.0, np.linalg.norm(WorstTeacher.others, axis=1, keepdims=True)
    )
    known = bounded.sum(axis=0) / TEACHERS
    half = plan.answer_units // 2
    noise = source("rounded-gaussian")
    for number in range(LEDGERS):
        place = folder / f"world-{world}" / str(number)
        with (
            Ledger.create(
                place / "ledger", dataset_id="x", plan=plan, witness=place / "w", default_cap=half
            ) as ledger,
            ThreadPoolExecutor(2) as pool,
        ):
            answerer = Answerer(
                WorstTeacher(world), "v", [ServedTap(tap, (2,), None)], ledger, noise
            )
            colluders = Colluders(answerer, known)
            for _ in range(ROUNDS):
                colluders.round(pool)
                state = ledger.budget()
                assert state.spent <= state.budget == plan.answer_units
                assert state.epsilon_spent <= plan.epsilon
            # Every name they can think of is refused one more answer, at once or one by one.
            more = colluders.samples(np.arange(1))
            for client in ("ann", "bob", "cy"):
                with pytest.raises(BudgetExhausted):
                    colluders.ask(client, np.arange(1), more)
            state = ledger.budget()
            assert state.spent == VICTIMS * ROUNDS * tap.charge <= plan.answer_units
            assert state.left < tap.charge
            charged = [entry.charge for entry in ledger.entries()]
            assert sum(charged) == state.spent
            for client in ("ann", "bob", "cy"):
                assert ledger.budget(client).client_spent <= half
        yield colluders.evidence


def test_colluding_adaptive_clients_learn_what_the_budget_allows_and_no_more(
    tmp_path: Path, plan: BudgetPlan, tap: TapRelease
) -> None:
    hits = []
    for world in (0, 1):
        evidence = np.concatenate(list(interactions(tmp_path, plan, tap, world)))
        assert evidence.shape == (TRIALS,)
        hits.append(int((evidence > 0.0).sum()))
    false_positives, true_positives = hits
    low = beta.ppf(ALPHA, true_positives, TRIALS - true_positives + 1)
    high = beta.ppf(1.0 - ALPHA, false_positives + 1, TRIALS - false_positives)
    measured = float(norm.ppf(low) - norm.ppf(high))
    exact = mu_of_units(ROUNDS * tap.charge)
    print(f"\nblocks of {ROUNDS} answers: μ = {exact:.4f} exact, at least {measured:.4f} measured")
    # The sum of matched answers is the best test there is (Neyman & Pearson), so that its power is
    # the bound's. 5 standard errors of both rates leave 0.77 of it at least.
    assert 0.75 * exact <= measured <= exact
