"""DP-SGD and answers together, against quadrature, Opacus and known values."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from privacy import gaussian
from privacy.composition import SMALLEST_DELTA, DpSgdRun, delta, epsilon, noise_multiplier
from privacy.promise import Adjacency

REFERENCE = DpSgdRun(sample_rate=0.00512, noise_multiplier=1.0, steps=2000)


def test_reference_run_under_both_adjacencies() -> None:
    assert epsilon([REFERENCE], 0.0, 1e-5, Adjacency.ADD_REMOVE) == pytest.approx(1.240, abs=5e-4)
    assert epsilon([REFERENCE], 0.0, 1e-5) == pytest.approx(1.978, abs=5e-4)


def test_reference_run_with_answers_of_mu_one() -> None:
    assert epsilon([REFERENCE], 1.0, 1e-5) == pytest.approx(4.968, abs=5e-4)


def test_dp_accounting_composes_the_same_events_to_the_same_number() -> None:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    step = dp_accounting.PoissonSampledDpEvent(0.02, dp_accounting.GaussianDpEvent(1.5))
    accountant.compose(step, 300)
    accountant.compose(dp_accounting.GaussianDpEvent(2.0 / 0.4))
    ours = epsilon([DpSgdRun(0.02, 1.5, 300)], 0.4, 1e-6)
    assert ours == pytest.approx(accountant.get_epsilon(1e-6), abs=1e-3)


def mixture(x: np.ndarray | float, q: float, sigma: float, mean: float) -> np.ndarray | float:
    return (1 - q) * norm.pdf(x, 0.0, sigma) + q * norm.pdf(x, mean, sigma)


@pytest.mark.parametrize(("q", "sigma"), [(0.1, 1.0), (0.5, 0.7), (1.0, 2.0)])
def test_one_step_equals_quadrature(q: float, sigma: float) -> None:
    """δ(ε) of the dominating pair of one replace-one step, integrated without the library."""
    for e in (0.1, 0.5, 1.5):

        def gap(x: float, e: float = e) -> float:
            return max(mixture(x, q, sigma, 1.0) - math.exp(e) * mixture(x, q, sigma, -1.0), 0.0)

        exact = quad(gap, -10 * sigma, 12 * sigma, limit=500, epsabs=1e-12)[0]
        ours = delta([DpSgdRun(q, sigma, 1)], 0.0, e)
        assert exact - 1e-9 <= ours <= exact + 1e-5


def test_opposite_gradients_dominate_every_other_pair() -> None:
    """The lemma behind the replace-one pair, searched in the plane.

    For gradients g, g' anywhere in the unit disc, the hockey-stick divergence of the sampled step
    is at most that of g = (1, 0), g' = (−1, 0), at every order on both sides of 1.
    """
    q, sigma = 0.3, 0.8
    axis = np.arange(-6.0, 6.0, 0.04)
    x, y = np.meshgrid(axis, axis)

    def law(gradient: tuple[float, float]) -> np.ndarray:
        def density(a: float, b: float) -> np.ndarray:
            square = (x - a) ** 2 + (y - b) ** 2
            return np.exp(-square / (2 * sigma**2)) / (2 * math.pi * sigma**2)

        return (1 - q) * density(0.0, 0.0) + q * density(*gradient)

    def hockey_stick(p: np.ndarray, r: np.ndarray, order: float) -> float:
        return float(np.clip(p - order * r, 0.0, None).sum() * 0.04**2)

    orders = (0.5, 0.9, 1.0, 1.2, 2.0, 4.0)
    worst = [hockey_stick(law((1.0, 0.0)), law((-1.0, 0.0)), order) for order in orders]
    rng = np.random.default_rng(3)
    for _ in range(40):
        angles, radii = rng.uniform(0, 2 * math.pi, 2), np.sqrt(rng.uniform(0, 1, 2))
        radii[rng.random(2) < 0.5] = 1.0
        first, second = (
            (r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, radii, strict=True)
        )
        for order, bound in zip(orders, worst, strict=True):
            assert hockey_stick(law(first), law(second), order) <= bound + 1e-9


def test_without_sampling_it_is_the_exact_gaussian_curve() -> None:
    """q = 1: n steps at σ are √n·2/σ-GDP under replace-one; answers add in squares."""
    runs = [DpSgdRun(1.0, 20.0, 25)]
    mu = math.sqrt(25 * (2 / 20.0) ** 2 + 0.3**2)
    assert epsilon(runs, 0.3, 1e-6) == pytest.approx(gaussian.epsilon(1e-6, mu), abs=1e-3)
    assert epsilon(runs, 0.3, 1e-6) >= gaussian.epsilon(1e-6, mu) - 1e-9
    assert epsilon([], 0.3, 1e-6) == gaussian.epsilon(1e-6, 0.3)
    assert delta([], 0.3, 1.0) == gaussian.delta(1.0, 0.3)


def test_delta_and_epsilon_describe_one_curve() -> None:
    e = epsilon([REFERENCE], 0.5, 1e-5)
    assert delta([REFERENCE], 0.5, e) == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize(
    ("target", "d", "q", "steps", "runs"),
    [(3.0, 1e-5, 0.05, 400, 1), (0.5, 1e-6, 0.01, 5000, 1), (2.0, 1e-5, 0.02, 200, 4)],
)
def test_noise_multiplier_reaches_the_target_from_below(
    target: float, d: float, q: float, steps: int, runs: int
) -> None:
    sigma = noise_multiplier(target, d, q, steps, runs=runs)
    reached = epsilon([DpSgdRun(q, sigma, steps)] * runs, 0.0, d)
    assert target * (1 - 1e-3) <= reached <= target * (1 + 1e-9)


def test_more_runs_cost_more() -> None:
    run = DpSgdRun(0.05, 2.0, 50)
    costs = [epsilon([run] * n, 0.0, 1e-5) for n in (1, 2, 4)]
    assert costs == sorted(costs)
    assert costs[0] < costs[2]


def test_json_round_trip_and_refusals() -> None:
    assert DpSgdRun.from_json(REFERENCE.to_json()) == REFERENCE
    for rate, noise, steps in ((0.0, 1.0, 1), (1.1, 1.0, 1), (0.1, 0.0, 1), (0.1, 1.0, 0)):
        with pytest.raises(ValueError, match="must"):
            DpSgdRun(rate, noise, steps)
    with pytest.raises(ValueError, match="resolves nothing"):
        epsilon([REFERENCE], 0.0, SMALLEST_DELTA / 2)
    with pytest.raises(ValueError, match="above 0"):
        noise_multiplier(0.0, 1e-5, 0.1, 10)
