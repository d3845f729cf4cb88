"""A charge and a budget query, beside dp-accounting's PLD and Opacus's PRV accountants.

    python -m benchmarks.accounting

All three account for T answers of noise σ/Δ that were already given. Then, in one process:

*charge*: decide whether one more answer still fits the budget, and take it down. Ours compares
integers; the others compose one more Gaussian and look at ε, for they have no other limit.
*ε*: the ε of what was spent, as every receipt carries it. PLD reads it off the distribution that
it holds; PRV convolves again, as it holds a list.

PLD and PRV run on their default grids, tightened where they are not within 1e-6 of the exact curve.
For these pure Gaussians a grid of 1e-3, ten times coarser than PLD's default, would do as well: an
ε is then read off in a tenth of the time, 170 to 340 times ours.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from privacy import gaussian
from privacy.accounting import SIGMA, charge_units
from privacy.budget import BudgetPlan, open_plan, spent_epsilon
from privacy.composition import DpSgdRun
from privacy.noise import Closeness

RESULT = Path(__file__).parent / "results" / "accounting.json"
COMMAND = "python -m benchmarks.accounting"
GOAL_RATIO = 1_000
GOAL_DIFFERENCE = 1e-6
DELTA = 1e-5
# (σ/Δ, answers already given)
CASES = [(20.0, 1_000), (100.0, 10_000)]
PLD_GRIDS = (1e-4, 3e-5, 1e-5, 3e-6)
PRV_ERRORS = (1e-2, 5e-3, 2e-3, 1e-3)


def seconds(work: Callable[[], object], repeats: int, rounds: int = 5) -> float:
    """Seconds a call, the best of `rounds`."""
    best = math.inf
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        best = min(best, (time.perf_counter() - started) / repeats)
    return best


def ours(deviation: float, answers: int) -> dict[str, float]:
    """Our seconds and ε. The plan is left as large as it is: nothing is refused while measured."""
    radius = round(SIGMA / deviation / 2.0)
    spent = answers * charge_units("hint", radius)
    # The noise sampler's share of ε and δ is in every ε shown; here the curves are compared.
    plan = open_plan(20.0, DELTA, draws=1, closeness=Closeness(0.0, 0.0))
    total = 0

    def charge() -> bool:
        nonlocal total
        asked = charge_units("hint", radius)
        if total + asked > plan.answer_units:
            return False
        total += asked
        return True

    def query() -> float:
        return spent_epsilon(plan, spent)

    # So many charges that the last ones are refused: both answers cost the same.
    return {"charge": seconds(charge, 20_000), "query": seconds(query, 2_000), "epsilon": query()}


def pld(deviation: float, answers: int, exact: float) -> dict[str, float]:
    """dp-accounting's PLDAccountant under replace-one, as its documentation uses it."""
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    # Its mechanism moves by 1 where ours has Δ = 1 for a replacement, which moves by 2.
    event = dp_accounting.GaussianDpEvent(2.0 * deviation)
    for grid in PLD_GRIDS:
        accountant = PLDAccountant(relation, value_discretization_interval=grid)
        accountant.compose(event, answers)
        epsilon = float(accountant.get_epsilon(DELTA))
        if abs(epsilon - exact) <= GOAL_DIFFERENCE:
            break

    def charge() -> bool:
        accountant.compose(event)
        return bool(accountant.get_epsilon(DELTA) <= exact)

    query = seconds(lambda: accountant.get_epsilon(DELTA), 3, rounds=3)
    return {"charge": seconds(charge, 1, rounds=3), "query": query, "epsilon": epsilon} | {
        "grid": grid
    }


def prv(deviation: float, answers: int, exact: float) -> dict[str, float]:
    """Opacus's PRVAccountant; ε is its estimate, the middle of its own error bars."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()

    def estimate(error: float) -> float:
        discrete = accountant._get_dprv(eps_error=error, delta_error=DELTA / 1000)
        return float(discrete.compute_epsilon(DELTA, DELTA / 1000, error)[1])

    for error in PRV_ERRORS:
        accountant.history = [(deviation, 1.0, answers)]
        epsilon = estimate(error)
        if abs(epsilon - exact) <= GOAL_DIFFERENCE:
            break

    def charge() -> bool:
        accountant.step(noise_multiplier=deviation, sample_rate=1.0)
        return estimate(error) <= exact

    query = seconds(lambda: estimate(error), 1, rounds=3)
    return {"charge": seconds(charge, 1, rounds=3), "query": query, "epsilon": epsilon} | {
        "grid": error
    }


def with_training() -> dict[str, float]:
    """A query of a plan that reserves a DP-SGD run: a first one, and then from memory."""
    run = DpSgdRun(0.05, 8.0, 200)
    reserved = open_plan(4.0, DELTA, training=[run])

    def first() -> float:
        # Another μ each time, as a ledger that spends would ask.
        plan = BudgetPlan(4.0, DELTA, "record", next(units), reserved.draws, (run,))
        return spent_epsilon(plan, plan.answer_units)

    units = iter(range(reserved.answer_units - 10, reserved.answer_units))
    half = reserved.answer_units // 2
    spent_epsilon(reserved, half)
    return {
        "first_ms": 1e3 * seconds(first, 1, rounds=3),
        "again_us": 1e6 * seconds(lambda: spent_epsilon(reserved, half), 2_000),
    }


def measure(cases: Sequence[tuple[float, int]] = CASES) -> dict[str, Any]:
    """Microseconds, ratios and the largest difference; needs about a minute."""
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for deviation, answers in cases:
        radius = round(SIGMA / deviation / 2.0)
        mu = math.sqrt(answers * charge_units("hint", radius)) / SIGMA
        exact = gaussian.epsilon(DELTA, mu)
        own = ours(deviation, answers)
        noise = SIGMA / (2.0 * radius)
        for name, peer in (
            ("PLD", pld(noise, answers, exact)),
            ("PRV", prv(noise, answers, exact)),
        ):
            rows.append(
                {
                    "answers": answers,
                    "noise_over_sensitivity": deviation,
                    "peer": name,
                    "peer_grid": peer["grid"],
                    "charge_us": 1e6 * own["charge"],
                    "peer_charge_us": 1e6 * peer["charge"],
                    "charge_ratio": peer["charge"] / own["charge"],
                    "epsilon_us": 1e6 * own["query"],
                    "peer_epsilon_us": 1e6 * peer["query"],
                    "epsilon_ratio": peer["query"] / own["query"],
                    "difference": abs(peer["epsilon"] - own["epsilon"]),
                }
            )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": COMMAND,
        "rows": rows,
        "with_reserved_training": with_training(),
        "goals": {
            "ratio": GOAL_RATIO,
            "difference": GOAL_DIFFERENCE,
            "charge_met": min(row["charge_ratio"] for row in rows) >= GOAL_RATIO,
            "epsilon_met": min(row["epsilon_ratio"] for row in rows) >= GOAL_RATIO,
            "difference_met": max(row["difference"] for row in rows) <= GOAL_DIFFERENCE,
        },
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The table, a line each."""
    head = (
        f"{'answers':>8} {'peer':>5} {'grid':>7} {'charge µs':>10} {'peer µs':>11} {'ratio':>12}"
        f" {'ε µs':>7} {'peer µs':>11} {'ratio':>9} {'|Δε|':>8}"
    )
    rows = [
        f"{row['answers']:>8} {row['peer']:>5} {row['peer_grid']:>7.0e} {row['charge_us']:>10.3f}"
        f" {row['peer_charge_us']:>11,.0f} {row['charge_ratio']:>12,.0f} {row['epsilon_us']:>7.2f}"
        f" {row['peer_epsilon_us']:>11,.0f} {row['epsilon_ratio']:>9,.0f} {row['difference']:>8.1e}"
        for row in result["rows"]
    ]
    training = result["with_reserved_training"]
    return [
        head,
        *rows,
        f"with a reserved DP-SGD run: {training['again_us']:.1f} µs, the first time in a 256th of "
        f"the budget {training['first_ms']:.0f} ms",
    ]


def main() -> None:
    result = measure()
    print("\n".join(lines(result)))
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
