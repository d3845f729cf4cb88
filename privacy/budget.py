"""The plan a ledger is opened with: one (ε, δ) for everything that is ever learnt from a data set.

The plan reserves the DP-SGD runs, sets aside what the noise generator's error may cost, and fixes
the answering budget as the largest μ for which

    composition(reserved runs ⊗ μ-GDP answers) is (ε₀, δ₀)-DP under replace-one,

where (ε₀, δ₀) = `noise.ideal_target(ε, δ, draws)` is a little below (ε, δ). Nothing chosen later
adds to it (docs/privacy/promise.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from privacy import composition, gaussian
from privacy.accounting import budget_units, mu_of_units
from privacy.composition import DpSgdRun
from privacy.errors import InvalidPlan
from privacy.noise import (
    DEFAULT_CLOSENESS,
    Closeness,
    NoiseSource,
    ideal_target,
    noise_delta,
    noise_epsilon,
)
from privacy.promise import Adjacency, Promise

MAX_DRAWS = 2**40
"""Default limit on noise draws of a ledger's whole life (one draw per released number)."""

_PARTS = 256

_ROUNDING = 1e-9
"""By how much the curve's two inverses, each rounded to its safe side, may disagree on ε."""


@dataclass(frozen=True)
class BudgetPlan:
    """What a ledger enforces.

    epsilon, delta: of everything, replace-one, all clients together.
    unit: what one replacement touches: "record", "person", ...
    answer_units: Σ of charges that may ever be debited, in units of μ²·2⁴⁰.
    draws: noise draws that may ever be consumed.
    training: the DP-SGD runs that may ever be released, tuning runs included.
    closeness: (η, τ) per draw that was counted (privacy/noise.py); see `covers`.
    """

    epsilon: float
    delta: float
    unit: str
    answer_units: int
    draws: int
    training: tuple[DpSgdRun, ...] = ()
    closeness: Closeness = DEFAULT_CLOSENESS

    @property
    def promise(self) -> Promise:
        """The promise that holds whatever is served from this ledger."""
        return Promise(self.epsilon, self.delta, Adjacency.REPLACE_ONE, self.unit)

    @property
    def mu_max(self) -> float:
        """μ of the whole answering budget."""
        return mu_of_units(self.answer_units)

    @cached_property
    def ideal_target(self) -> tuple[float, float]:
        """(ε₀, δ₀) that training and answers together keep under ideal noise."""
        return ideal_target(self.epsilon, self.delta, self.draws, self.closeness)

    def covers(self, noise: NoiseSource) -> bool:
        """Whether the plan has set aside enough for this noise source."""
        return self.closeness.covers(noise.closeness)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back without loss."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "unit": self.unit,
            "answer_units": self.answer_units,
            "draws": self.draws,
            "training": [run.to_json() for run in self.training],
            "eta": self.closeness.eta,
            "tau": self.closeness.tau,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "BudgetPlan":
        """Raises ValueError or KeyError on anything that `to_json` does not write."""
        return cls(
            epsilon=float(value["epsilon"]),
            delta=float(value["delta"]),
            unit=str(value["unit"]),
            answer_units=int(value["answer_units"]),
            draws=int(value["draws"]),
            training=tuple(DpSgdRun.from_json(run) for run in value["training"]),
            closeness=Closeness(float(value["eta"]), float(value["tau"])),
        )


def open_plan(
    epsilon: float,
    delta: float,
    *,
    unit: str = "record",
    draws: int | None = None,
    training: Sequence[DpSgdRun] = (),
    closeness: Closeness = DEFAULT_CLOSENESS,
) -> BudgetPlan:
    """The plan with the largest answering budget.

    draws: see `settle_draws`. 0 draws leave no answering budget: for `dp-sgd` alone.
    closeness: of the noise source that is to be served; the plan sets its cost aside.

    Raises InvalidPlan when the reserved runs alone pass ε, or when the draws' share of δ is too
    large.
    """
    draws, _ = settle_draws(epsilon, delta, draws, closeness)
    target = ideal_target(epsilon, delta, draws, closeness)
    runs = tuple(training)
    if runs:
        alone = _composed_epsilon(runs, 0.0, target[1])
        if alone > target[0]:
            raise InvalidPlan(
                f"the reserved DP-SGD runs alone cost ε = {alone:.6g} of {target[0]:.6g} at "
                f"δ = {target[1]:.4g} (replace-one); raise their noise multiplier, reserve fewer, "
                f"or allow fewer noise draws"
            )
    units = budget_units(_largest_mu(runs, *target) if draws else 0.0)
    return BudgetPlan(float(epsilon), float(delta), unit, units, draws, runs, closeness)


def settle_draws(
    epsilon: float,
    delta: float,
    draws: int | None = None,
    closeness: Closeness = DEFAULT_CLOSENESS,
) -> tuple[int, float]:
    """The limit on noise draws, and the δ that remains for training and answers.

    Without `draws`: the largest power of two up to MAX_DRAWS whose share is at most a thousandth
    of ε and a tenth of δ, which is MAX_DRAWS for a source with η = 0. Raises InvalidPlan when ε or
    δ is out of range, or a share passes half.
    """
    if not (math.isfinite(epsilon) and epsilon > 0.0):
        raise InvalidPlan(f"epsilon must be a number above 0, not {epsilon}")
    if not 0.0 < delta < 1.0:
        raise InvalidPlan(f"delta must lie strictly between 0 and 1, not {delta}")
    if draws is None:
        draws = MAX_DRAWS
        while draws > 1 and (
            noise_epsilon(draws, closeness.eta) > epsilon / 1000.0
            or noise_delta(draws, epsilon, closeness.tau) > delta / 10.0
        ):
            draws //= 2
    if draws < 0:
        raise InvalidPlan(f"draws must be at least 0, not {draws}")
    epsilon_left, delta_left = ideal_target(epsilon, delta, draws, closeness)
    if epsilon_left < epsilon / 2.0 or delta_left < delta / 2.0:
        raise InvalidPlan(
            f"{draws} noise draws need ε = {noise_epsilon(draws, closeness.eta):.3g} of "
            f"{epsilon:g} and δ = {noise_delta(draws, epsilon, closeness.tau):.3g} of {delta:g} "
            f"for the generator's own error, "
            f"more than half; allow fewer draws or change ε or δ"
        )
    return draws, delta_left


def spent_epsilon(plan: BudgetPlan, units: int) -> float:
    """ε at the plan's δ of `units` charged so far, the reserved training counted as spent.

    The noise generator's share of ε counts as spent from the first charge on. Never below the
    exact value. At most plan.epsilon for a plan that `verify_plan` accepts and units within its
    budget. Microseconds: it is called for every receipt.

    With reserved runs the answers' μ is rounded up to the next of 256 equal parts of the budget,
    so that all calls but the first of a part are answered from memory.
    """
    share = noise_epsilon(plan.draws, plan.closeness.eta) if units else 0.0
    left = plan.ideal_target[1]
    mu = mu_of_units(units)
    if not plan.training:
        spent = share + gaussian.epsilon(left, mu)
    else:
        if 0 < units <= plan.answer_units:
            part = plan.mu_max / _PARTS
            mu = min(plan.mu_max, math.ceil(mu / part) * part)
        spent = share + _composed_epsilon(plan.training, mu, left)
    # μ_max was rounded down and ε is rounded up: that rounding is not shown as an excess.
    excess = spent - plan.epsilon
    if units <= plan.answer_units and 0.0 < excess <= _ROUNDING * max(1.0, plan.epsilon):
        return plan.epsilon
    return spent


def verify_plan(plan: BudgetPlan) -> None:
    """Recompute what the plan claims; raises InvalidPlan where it promises more than it keeps."""
    epsilon, delta = plan.ideal_target
    if epsilon <= 0.0 or delta <= 0.0 or (plan.answer_units and not plan.draws):
        raise InvalidPlan("the plan's noise draws cost more than its ε and δ, or are none at all")
    # Answers alone first: their closed form is instant, a composition far past ε takes a minute.
    spent = composition.delta((), plan.mu_max, epsilon)
    if spent <= delta:
        spent = composition.delta(plan.training, plan.mu_max, epsilon)
    # The two directions of the curve agree to about 1e-9 (relative, of δ).
    if spent > delta * (1.0 + 1e-8):
        raise InvalidPlan(
            f"the plan's training and answers need δ = {spent:.6g} at ε = {epsilon:.6g}; they "
            f"have {delta:.6g}"
        )


@lru_cache(maxsize=4096)
def _composed_epsilon(runs: tuple[DpSgdRun, ...], mu: float, delta: float) -> float:
    return composition.epsilon(runs, mu, delta)


def _largest_mu(runs: tuple[DpSgdRun, ...], epsilon: float, delta: float) -> float:
    high = gaussian.mu(epsilon, delta)
    if not runs:
        return high

    def excess(mu: float) -> float:
        return math.log(composition.delta(runs, mu, epsilon)) - math.log(delta)

    # Under this μ one answer's noise is past every use, and the grid resolves nothing.
    low = high * 1e-3
    if excess(low) > 0.0:
        return 0.0
    # Half of the time in which a command starts, for the few that open a ledger with training.
    from scipy.optimize import brentq

    root = float(brentq(excess, low, high, xtol=1e-9 * high, rtol=1e-9))
    # The library's two directions of the curve agree to about 1e-11: both must hold.
    while excess(root) > 0.0 or composition.epsilon(runs, root, delta) > epsilon:
        root *= 1.0 - 1e-8
    return root
