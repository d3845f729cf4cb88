"""Our accounting beside dp-accounting, Opacus and OpenDP, in one table (`pytest -s` prints it).

What must agree, must; what is looser must lie above; what underestimates is shown to.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import ndtr

from privacy import composition, gaussian
from privacy.accounting import SIGMA
from privacy.composition import DpSgdRun
from privacy.promise import Adjacency, Promise

# (σ/Δ, answers, δ)
ANSWERS = [
    (5.0, 1, 1e-5),
    (2.0, 4, 1e-6),
    (20.0, 1_000, 1e-5),
    (100.0, 10_000, 1e-5),
    (500.0, 60_000, 1e-6),
    (3.0, 100, 1e-7),
]
# (q, σ/C, steps, δ, μ of the answers composed with the run)
TRAINING = [
    (0.00512, 1.0, 2_000, 1e-5, 1.0),
    (0.02, 1.5, 300, 1e-6, 0.4),
    (0.1, 4.0, 100, 1e-5, 0.5),
]


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Opacus and dp-accounting warn about orders that they leave out."""
    warnings.simplefilter("ignore")


# Other people's accountants


def pld(deviation: float, count: int, grid: float, delta: float, adjacency: Adjacency) -> float:
    """dp-accounting's PLD: `count` Gaussians of noise `deviation` × the sensitivity."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution

    replace = adjacency is Adjacency.REPLACE_ONE
    one = privacy_loss_distribution.from_gaussian_mechanism(
        # Its mechanism moves by 1 for an addition, hence by 2 for a replacement.
        deviation * (2.0 if replace else 1.0),
        neighboring_relation=NeighboringRelation.REPLACE_ONE
        if replace
        else NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=grid,
    )
    return float(one.self_compose(count).get_epsilon_for_delta(delta))


def rdp(deviation: float, count: int, delta: float, rate: float = 1.0, mu: float = 0.0) -> float:
    """dp-accounting's RDP: `count` Gaussians, sampled at `rate`, and one of σ/Δ = 1/μ."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    step = dp_accounting.GaussianDpEvent(deviation)
    if rate < 1.0:
        step = dp_accounting.PoissonSampledDpEvent(rate, step)
    accountant.compose(step, count)
    if mu:
        accountant.compose(dp_accounting.GaussianDpEvent(1.0 / mu))
    return float(accountant.get_epsilon(delta))


def opacus(name: str, history: list[tuple[float, float, int]], delta: float) -> float:
    """Opacus's accountant "rdp" or "gdp"; history of (σ, q, steps)."""
    from opacus.accountants import create_accountant

    accountant = create_accountant(name)
    accountant.history = history
    return float(accountant.get_epsilon(delta=delta))


def prv(history: list[tuple[float, float, int]], delta: float, error: float) -> tuple[float, float]:
    """Opacus's PRV: (its estimate of ε, its upper bound) at mesh for error `error`."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = history
    discrete = accountant._get_dprv(eps_error=error, delta_error=delta / 1000)
    _, estimate, upper = discrete.compute_epsilon(delta, delta / 1000, error)
    return float(estimate), float(upper)


@dataclass(frozen=True)
class ReplaceOneStep:
    """Privacy loss of docs/privacy/promise.md, Lemma 4, for Opacus's convolution (it has no own).

    The loss log p/q at x is log((1 + a·u)/(1 + a/u)) with u = e^{x/σ²} and
    a = q/(1 − q)·e^{−1/(2σ²)}; it grows with x, and u solves a·u² + (1 − r)·u − r·a = 0.
    """

    rate: float
    sigma: float

    def cdf(self, loss: np.ndarray) -> np.ndarray:
        a = self.rate / (1.0 - self.rate) * math.exp(-0.5 / self.sigma**2)
        r = np.exp(np.minimum(loss, 200.0))
        half = (r - 1.0) / (2.0 * a)
        root = np.sqrt(half**2 + r)
        # The positive root, without cancellation for r < 1.
        u = np.where(half > 0.0, half + root, r / (root - half))
        x = self.sigma**2 * np.log(u)
        return (1 - self.rate) * ndtr(x / self.sigma) + self.rate * ndtr((x - 1.0) / self.sigma)


@dataclass(frozen=True)
class GaussianAnswers:
    """Privacy loss of μ-GDP: N(μ²/2, μ²)."""

    mu: float

    def cdf(self, loss: np.ndarray) -> np.ndarray:
        return ndtr(loss / self.mu - self.mu / 2.0)


def prv_replace_one(run: DpSgdRun, mu: float, delta: float) -> float:
    """The replace-one pair, and answers, through Opacus's truncation and Fourier transforms."""
    from opacus.accountants.analysis import prv as analysis

    domain = analysis.Domain.create_aligned(-16.0, 16.0, 2e-4)
    losses = [ReplaceOneStep(run.sample_rate, run.noise_multiplier)]
    counts = [run.steps]
    if mu:
        losses.append(GaussianAnswers(mu))
        counts.append(1)
    discrete = [
        analysis.discretize(
            analysis.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max), domain
        )
        for loss in losses
    ]
    composed = analysis.compose_heterogeneous(dprvs=discrete, num_self_compositions=counts)
    return float(composed.compute_epsilon(delta, delta / 1000, 0.01)[1])


def opendp(deviation: float, count: int, delta: float) -> float:
    """OpenDP: ρ of each answer at our σ, added, then its zCDP → (ε, δ) conversion."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    rho = count * dp.m.make_gaussian(*space, scale=float(SIGMA)).map(SIGMA / deviation)
    unit = dp.c.make_zCDP_to_approxDP(dp.m.make_gaussian(*space, scale=1.0))
    return float(unit.map(math.sqrt(2.0 * rho)).epsilon(delta))


def show(title: str, columns: str, rows: list[list[float | str]]) -> None:
    print(f"\n{title}\n" + "".join(f"{column:>16}" for column in columns.split("|")))
    for row in rows:
        cells = (cell if isinstance(cell, str) else f"{cell:.7f}" for cell in row)
        print("".join(f"{cell:>16}" for cell in cells))


def test_accounting_beside_dp_accounting_opacus_and_opendp() -> None:
    compare_answers()
    compare_training()


def compare_answers() -> None:
    """T answers of noise σ/Δ. One curve for both adjacencies: Δ is the sensitivity of either."""
    from dp_accounting import get_epsilon_gaussian

    rows: list[list[float | str]] = []
    for deviation, count, delta in ANSWERS:
        mu = math.sqrt(count) / deviation
        ours = gaussian.epsilon(delta, mu)
        closed = float(get_epsilon_gaussian(1.0 / mu, delta))
        fine = [pld(1.0 / mu, 1, 4e-4, delta, adjacency) for adjacency in Adjacency]
        composed = pld(deviation, count, 1e-4, delta, Adjacency.REPLACE_ONE)
        estimate, _ = prv([(1.0 / mu, 1.0, 1)], delta, 1e-3)
        _, upper = prv([(deviation, 1.0, count)], delta, 0.01)
        loose = {
            "RDP": rdp(deviation, count, delta),
            "Opacus RDP": opacus("rdp", [(deviation, 1.0, count)], delta),
            "OpenDP": opendp(deviation, count, delta),
        }
        case = f"{deviation:g} {count} {delta:g}"
        rows.append([case, ours, closed, fine[0], composed, estimate, upper, *loose.values()])
        # Ours is rounded upwards, theirs is a root finder's.
        assert ours == pytest.approx(closed, abs=1e-9 * max(1.0, closed))
        # One Gaussian of the same μ on grids fine enough for it: the two libraries' errors are
        # under 1e-6. T-fold they add up, to the safe side.
        assert fine == pytest.approx([ours, ours], abs=1e-6)
        assert estimate == pytest.approx(ours, abs=1e-6)
        assert ours - 1e-6 <= composed <= ours + 1e-3
        assert ours - 1e-6 <= upper <= ours + 0.02
        for name, value in loose.items():
            assert ours < value, name
    show(
        "Gaussian answers: ε, replace-one",
        "σ/Δ T δ|ours|closed form|PLD, μ|PLD, T-fold|PRV, μ|PRV, T, bound"
        "|RDP|Opacus RDP|OpenDP zCDP",
        rows,
    )


def compare_training() -> None:
    """DP-SGD alone, and composed with answers of μ, under both adjacencies."""
    rows: list[list[float | str]] = []
    for rate, sigma, steps, delta, answers in TRAINING:
        run = DpSgdRun(rate, sigma, steps)
        for mu in (0.0, answers):
            history = [(sigma, rate, steps)] + ([(1.0 / mu, 1.0, 1)] if mu else [])
            added = composition.epsilon([run], mu, delta, Adjacency.ADD_REMOVE)
            estimate, upper = prv(history, delta, 0.005)
            loose = rdp(sigma, steps, delta, rate, mu)
            opacus_loose = opacus("rdp", history, delta)
            replaced = composition.epsilon([run], mu, delta)
            independent = prv_replace_one(run, mu, delta)
            group = replace_one_by_group_privacy(run, mu, delta)
            clt = math.nan if mu else opacus("gdp", history, delta)
            case = f"{rate:g} {sigma:g} {steps} {mu:g}"
            bounds = [added, estimate, upper, loose, opacus_loose, clt]
            rows.append([case, *bounds, replaced, independent, group])
            # Our grid of 1e-4 errs upwards; PRV's estimate by its own mesh, either way.
            assert added == pytest.approx(estimate, abs=5e-5)
            assert replaced == pytest.approx(independent, abs=5e-5)
            assert added <= upper
            assert added < loose
            assert added < opacus_loose
            assert added < replaced < group
            # A central limit theorem is no bound: this is why "gdp" is never used.
            if not mu:
                assert clt < estimate - 0.01
    show(
        "DP-SGD and answers: ε under add/remove, then under replace-one",
        'q σ steps μ|ours|PRV|PRV, bound|RDP|Opacus RDP|Opacus "gdp"'
        "|ours, replace|PRV, replace|group privacy",
        rows,
    )


def replace_one_by_group_privacy(run: DpSgdRun, mu: float, delta: float) -> float:
    """ε that `Promise.under` reaches at `delta`: from the add/remove curve at a smaller δ."""
    share = delta
    for _ in range(3):
        epsilon = composition.epsilon([run], mu, share, Adjacency.ADD_REMOVE)
        share = delta / (1.0 + math.exp(epsilon))
    # The iterates fall towards the fixed point; half of the third lies below it.
    epsilon = composition.epsilon([run], mu, share / 2.0, Adjacency.ADD_REMOVE)
    once = Promise(epsilon, share / 2.0, Adjacency.ADD_REMOVE, "record")
    promise = once.under(Adjacency.REPLACE_ONE)
    assert promise.delta <= delta
    return promise.epsilon
