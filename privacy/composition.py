"""Composition of DP-SGD runs with Gaussian answers, by privacy loss distributions.

One step of DP-SGD with Poisson sampling at rate q and noise multiplier σ (in units of the clipping
norm) is dominated, for the two adjacencies, by the pairs

    add/remove:   (1−q)·N(0, σ²) + q·N(1, σ²)   against   N(0, σ²), in both orders;
    replace-one:  (1−q)·N(0, σ²) + q·N(1, σ²)   against   (1−q)·N(0, σ²) + q·N(−1, σ²).

The first is Zhu, Dong & Wang 2022; the second is proved in docs/privacy/promise.md, "One step of
DP-SGD under replace-one". Dominating pairs compose, adaptively and interleaved with the answering
filter (the same page, "Training and answers together"). The numbers come from dp-accounting's
pessimistic connect-the-dots discretisation, whose result is an upper bound.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import Any

from privacy import gaussian
from privacy.errors import InvalidPlan
from privacy.promise import Adjacency

_GRID = 1e-4
"""Spacing of the discretised privacy loss."""

_COARSE_GRID = 1e-3
"""Spacing while searching."""

SMALLEST_DELTA = 1e-10
"""Below this δ the Fourier transforms' own error, about 1e-13, would count."""


@dataclass(frozen=True)
class DpSgdRun:
    """One training run with Poisson-sampled, clipped and perturbed gradients.

    sample_rate: probability q ∈ (0, 1] with which each record enters a step.
    noise_multiplier: σ > 0, noise standard deviation over the clipping norm.
    steps: number of optimiser steps, at least 1.
    """

    sample_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0.0 < self.sample_rate <= 1.0:
            raise ValueError(f"sample_rate must lie in (0, 1], not {self.sample_rate}")
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0.0):
            raise ValueError(f"noise_multiplier must be above 0, not {self.noise_multiplier}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back without loss."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "DpSgdRun":
        """Raises ValueError or KeyError on anything that `to_json` does not write."""
        return cls(
            sample_rate=float(value["sample_rate"]),
            noise_multiplier=float(value["noise_multiplier"]),
            steps=int(value["steps"]),
        )


def epsilon(
    runs: Sequence[DpSgdRun],
    mu: float,
    delta: float,
    adjacency: Adjacency = Adjacency.REPLACE_ONE,
) -> float:
    """ε at `delta` of all `runs` and of answers that are `mu`-GDP under the same adjacency.

    An upper bound, within about 1e-3. Without runs: the exact curve. Raises ValueError for a
    `delta` below SMALLEST_DELTA with runs.
    """
    if not runs:
        return gaussian.epsilon(delta, mu)
    _check_delta(delta)
    return float(_composed(tuple(runs), mu, adjacency).get_epsilon_for_delta(delta))


def delta(
    runs: Sequence[DpSgdRun],
    mu: float,
    epsilon: float,
    adjacency: Adjacency = Adjacency.REPLACE_ONE,
) -> float:
    """δ at `epsilon` of the same composition. An upper bound."""
    if not runs:
        return gaussian.delta(epsilon, mu)
    return float(_composed(tuple(runs), mu, adjacency).get_delta_for_epsilon(epsilon))


def noise_multiplier(
    epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    adjacency: Adjacency = Adjacency.REPLACE_ONE,
    runs: int = 1,
) -> float:
    """The smallest σ at which `runs` equal runs together stay at most `epsilon`.

    `epsilon(...)` of the result is never above the target, and within 2e-4 of it (relative) for σ
    above 1e-2. Raises ValueError where no σ up to 1e6 reaches it.
    """
    if epsilon <= 0.0 or runs < 1:
        raise InvalidPlan("epsilon must be above 0 and runs at least 1")
    _check_delta(delta)

    @cache
    def excess(sigma: float, grid: float) -> float:
        total = (DpSgdRun(sample_rate, sigma, steps * runs),)
        fine = grid == _GRID
        pld = _training(total, adjacency) if fine else _runs_pld(total, adjacency, grid)
        reached = float(pld.get_epsilon_for_delta(delta))
        return math.log(max(reached, 1e-300) / epsilon)

    # A low σ is slow (its privacy loss is wide): approach it in small steps from above.
    high = 1.0
    while excess(high, _COARSE_GRID) > 0.0:
        high *= 2.0
        if high > 1e6:
            raise InvalidPlan(f"no noise multiplier up to 1e6 reaches epsilon {epsilon}")
    low = high / 1.25
    while excess(low, _COARSE_GRID) <= 0.0:
        low, high = low / 1.25, low
        if high < 1e-2:
            return high
    # Half of the time in which a command starts, for the few that calibrate a training.
    from scipy.optimize import brentq

    sigma = float(brentq(excess, low, high, args=(_COARSE_GRID,), xtol=1e-3 * low))
    slope = (excess(high, _COARSE_GRID) - excess(low, _COARSE_GRID)) / math.log(high / low)
    # Newton's steps on the fine grid with the coarse grid's slope, until just below the target.
    for _ in range(20):
        above = excess(sigma, _GRID)
        if -2e-4 <= above <= 0.0:
            return sigma
        sigma *= math.exp(-(above + 1e-4) / slope)
    while excess(sigma, _GRID) > 0.0:
        sigma *= 1.001
    return sigma


def _check_delta(delta: float) -> None:
    if not SMALLEST_DELTA <= delta < 1.0:
        raise InvalidPlan(
            f"with DP-SGD runs delta must lie in [{SMALLEST_DELTA:g}, 1), not {delta:g}: below "
            f"that the discretised privacy loss resolves nothing"
        )


@lru_cache(maxsize=4)
def _composed(runs: tuple[DpSgdRun, ...], mu: float, adjacency: Adjacency) -> Any:
    """dp-accounting's PrivacyLossDistribution of the runs and of one μ-GDP mechanism."""
    training = _training(runs, adjacency)
    if mu == 0.0:
        return training
    # dp-accounting's Gaussian moves by ±1, hence by 2 under replace-one.
    factor = 2.0 if adjacency is Adjacency.REPLACE_ONE else 1.0
    return training.compose(_gaussian_pld(factor / mu, 1.0, adjacency, _GRID))


@lru_cache(maxsize=4)
def _training(runs: tuple[DpSgdRun, ...], adjacency: Adjacency) -> Any:
    return _runs_pld(runs, adjacency, _GRID)


def _runs_pld(runs: tuple[DpSgdRun, ...], adjacency: Adjacency, grid: float) -> Any:
    total = None
    for run in runs:
        step = _gaussian_pld(run.noise_multiplier, run.sample_rate, adjacency, grid)
        steps = step.self_compose(run.steps)
        total = steps if total is None else total.compose(steps)
    return total


def _gaussian_pld(noise: float, sample_rate: float, adjacency: Adjacency, grid: float) -> Any:
    # Imported here: the library takes a second to load, and the client never needs it.
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution

    relation = {
        Adjacency.REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
        Adjacency.ADD_REMOVE: NeighboringRelation.ADD_OR_REMOVE_ONE,
    }[adjacency]
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise,
        sampling_prob=sample_rate,
        neighboring_relation=relation,
        value_discretization_interval=grid,
        pessimistic_estimate=True,
    )
