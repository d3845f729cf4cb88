"""The filter: charges chosen from earlier answers, stopped at will, against the exact curve.

The noise here is seeded: this tests the theorem (docs/privacy/promise.md, Theorem 3) and the
integers, not the sampler.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_ndtr
from scipy.stats import beta

from privacy import gaussian
from privacy.accounting import SIGMA, budget_units, charge_units, mu_of_units
from privacy.budget import BudgetPlan
from privacy.errors import BudgetExhausted
from privacy.ledger import Ledger, PendingAnswer

RUNS = 200_000
# Half the interactions in each world; each bound is wrong once in 10⁷ draws of the seed.
ALPHA = 1e-7

Strategy = Callable[[np.ndarray, np.ndarray], np.ndarray]


def when_undecided(evidence: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Small charges while the evidence speaks, a large one where it is silent."""
    silent = np.abs(evidence) < 0.5
    return np.where(silent, left // 3, left // 40)


def stop_when_sure(evidence: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Ends the interaction as soon as the likelihood ratio passes e or 1/e."""
    return np.where(np.abs(evidence) > 1.0, 0, left // 4)


def chase_the_loser(evidence: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Spends everything at once where the evidence points the wrong way, nothing elsewhere."""
    return np.where(evidence < 0.0, left, left // 10)


def interact(strategy: Strategy, budget: int, world: int, seed: int) -> np.ndarray:
    """log-likelihood ratio [RUNS] of whole interactions; charges are integers, as in the ledger."""
    rng = np.random.default_rng(seed)
    left = np.full(RUNS, budget, dtype=np.int64)
    evidence = np.zeros(RUNS)
    for turn in range(12):
        asked = strategy(evidence, left) if turn else np.full(RUNS, budget // 5)
        # The last turn asks for a unit too much: refused, whatever was spent before.
        asked = left + 1 if turn == 11 else asked
        charge = np.where(asked <= left, asked, 0)
        left -= charge
        assert left.min() >= 0
        mu = np.sqrt(charge) / SIGMA
        answer = world * mu + rng.normal(size=RUNS)
        evidence += mu * answer - mu * mu / 2.0
    return evidence


@pytest.mark.parametrize("strategy", [when_undecided, stop_when_sure, chase_the_loser])
def test_no_adaptive_strategy_passes_the_curve(strategy: Strategy) -> None:
    """P₁(S) − e^ε·P₀(S) ≤ δ(ε), on the likelihood ratio's own events, where it would be largest."""
    budget = budget_units(1.5)
    mu = mu_of_units(budget)
    losses = [interact(strategy, budget, world, seed=21) for world in (0, 1)]
    for epsilon in (0.0, 0.3, 1.0, 2.0, 3.0):
        rejected, accepted = (int((loss > epsilon).sum()) for loss in losses)
        power = beta.ppf(ALPHA, accepted, RUNS - accepted + 1)
        level = beta.ppf(1.0 - ALPHA, rejected + 1, RUNS - rejected)
        assert power - np.exp(epsilon) * level <= gaussian.delta(epsilon, mu)


def test_a_strategy_that_spends_all_attains_the_curve() -> None:
    """The bound is exact: adaptive charges that use everything up are N(±μ²/2, μ²) again."""

    def everything(evidence: np.ndarray, left: np.ndarray) -> np.ndarray:
        return np.where(evidence > 0.0, left, left // 2)

    budget = budget_units(1.5)
    mu = mu_of_units(budget)
    loss = np.sort(interact(lambda e, left: np.minimum(left, everything(e, left)), budget, 1, 22))
    for epsilon in (0.0, 1.0, 2.0):
        power = float((loss > epsilon).mean())
        exact = float(np.exp(log_ndtr(mu / 2.0 - epsilon / mu)))
        # Six standard errors.
        assert power == pytest.approx(exact, abs=6 * 0.5 / np.sqrt(RUNS))


@pytest.mark.parametrize("caps", [(None, None), (600, 500)])
def test_racing_clients_spend_every_unit_they_may_and_not_one_more(
    tmp_path: Path, caps: tuple[int | None, int | None]
) -> None:
    """Threads on the real ledger, charges of many sizes: it ends exactly at a limit."""
    budget = 1_000
    plan = BudgetPlan(4.0, 1e-5, "record", budget, 10_000)
    with Ledger.create(
        tmp_path / "host" / "ledger", dataset_id="x", plan=plan, witness=tmp_path / "w"
    ) as ledger:
        for client, cap in zip(("ann", "bob"), caps, strict=True):
            if cap is not None:
                ledger.set_cap(client, cap)
        start = threading.Barrier(4)

        def ask(worker: int) -> int:
            start.wait()
            client, spent = ("ann", "bob")[worker % 2], 0
            # Falling sizes, the last of one unit: what is left over at the end is nothing.
            for turn, charge in enumerate([97, 89, 61, 47, 23, 11, 5, 2] * 3 + [1] * 40):
                key = ledger.sample_key(f"{worker}/{turn}".encode(), "v", b"")
                answer = PendingAnswer(key, charge, 1, b"noisy")
                try:
                    settled = ledger.settle(client, f"{worker}/{turn}", b"c" * 32, [answer], "v")
                    spent += settled.charged
                except BudgetExhausted:
                    continue
            return spent

        with ThreadPoolExecutor(4) as pool:
            spent = list(pool.map(ask, range(4)))
        state = ledger.budget()
        assert state.spent == sum(spent) == budget
        for client, cap in zip(("ann", "bob"), caps, strict=True):
            assert ledger.budget(client).client_spent <= (budget if cap is None else cap)


def test_a_charge_is_never_less_than_what_it_pays_for() -> None:
    """Integers against exact rationals: no float decides at the limit."""
    for kind in ("logits", "hint", "probabilities"):
        for radius in (1, 3, 2**20 + 1, 2**28):
            charge = charge_units(kind, radius)
            assert charge == (2 if kind == "probabilities" else 4) * radius**2
    # A budget of one unit less than a charge refuses it; the same as floats would not.
    budget = 4 * (2**28) ** 2 - 1
    assert charge_units("hint", 2**28) > budget
    assert float(charge_units("hint", 2**28)) == float(budget)
