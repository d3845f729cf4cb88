"""Integer Gaussian noise from a cryptographic source, and what its imperfection costs.

The accounting is exact for *rounded* Gaussian noise, round(N(0, σ²)), which is post-processing of
Gaussian noise. A real sampler's law P differs from that law R. It is called (η, τ)-close when

    P(S) ≤ e^η·R(S) + τ   and   R(S) ≤ e^η·P(S) + τ   for every set S;

η = 0 is total variation τ. An adaptive interaction that is (ε, δ)-private with ideal noise, and
that consumes n draws of a real one, is private at

    ε + 2nη   and   e^{nη}·δ + n·τ·(1 + e^{ε + nη})

(docs/privacy/promise.md, "The noise"), whatever the number of dimensions, answers and clients.

There are two sources: `RoundedGaussian` draws that law itself, `DiscreteGaussian` is a neighbour of
it that others have reviewed. Both are integers from secret entropy to the end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from privacy.accounting import SIGMA
from privacy.rounded_gaussian import rounded_gaussian

NoiseName = Literal["rounded-gaussian", "opendp-discrete-gaussian"]

ETA = 2.0**-32
"""η of a discrete Gaussian draw: `discrete_gaussian_closeness(SIGMA, 36)` gives 2⁻³²·⁶⁶."""

TAU = 2.0**-900
"""τ of a discrete Gaussian draw: `discrete_gaussian_closeness(SIGMA, 36)` gives 2⁻⁹³³·⁸."""

ROUNDED_TAU = 2.0**-1000
"""τ of a rounded Gaussian draw: the mass of N(0, 1) beyond 40, 2⁻¹¹⁵⁹·⁸, is no float."""


@dataclass(frozen=True)
class Closeness:
    """(η, τ) of one draw against round(N(0, SIGMA²)); `tau` is total variation where η = 0."""

    eta: float
    tau: float

    def covers(self, other: "Closeness") -> bool:
        """Whether what was set aside for this closeness is enough for the other."""
        return other.eta <= self.eta and other.tau <= self.tau


class NoiseSource(Protocol):
    """A source of integer noise of standard deviation SIGMA. Never seedable, never logged."""

    @property
    def name(self) -> str:
        """The sampler's name, as the audit and the documentation call it."""

    @property
    def closeness(self) -> Closeness:
        """(η, τ) of one draw."""

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        """`count` independent draws: int64 [count]. Raises ValueError for a negative count."""


class RoundedGaussian:
    """round(N(0, SIGMA²)) itself, up to 40 standard deviations (privacy/rounded_gaussian.py).

    Tens of millions of draws a second on one core. Thread-safe; a forked child draws independently.
    """

    name: NoiseName = "rounded-gaussian"
    closeness = Closeness(0.0, ROUNDED_TAU)

    def __init__(self) -> None:
        self._sampler = rounded_gaussian()

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        """`count` independent draws: int64 [count]."""
        return self._sampler.sample(count)


class DiscreteGaussian:
    """OpenDP's exact discrete Gaussian at scale SIGMA (Canonne, Kamath & Steinke 2020).

    The law is P(x) ∝ exp(−x²/(2σ²)) on the integers, sampled without any floating-point step from
    the operating system's cryptographic generator. About a hundred thousand draws a second.
    """

    name: NoiseName = "opendp-discrete-gaussian"
    closeness = Closeness(ETA, TAU)

    def __init__(self) -> None:
        self._measure = _opendp_gaussian(float(SIGMA))

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        """`count` independent draws: int64 [count]."""
        if count < 0:
            raise ValueError(f"count must be at least 0, not {count}")
        if count == 0:
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self._measure([0] * count), dtype=np.int64)


_SOURCES: Mapping[str, type[RoundedGaussian] | type[DiscreteGaussian]] = MappingProxyType(
    {kind.name: kind for kind in (RoundedGaussian, DiscreteGaussian)}
)

DEFAULT_NOISE: NoiseName = "rounded-gaussian"
DEFAULT_CLOSENESS = RoundedGaussian.closeness
"""What a plan sets aside when no noise source is named."""


def source(name: NoiseName) -> NoiseSource:
    """The noise source of that name, newly made. Raises ValueError for a name that none has."""
    return _kind(name)()


def closeness(name: NoiseName) -> Closeness:
    """(η, τ) of one draw of the source of that name. Raises ValueError as `source` does."""
    return _kind(name).closeness


def sources_within(limit: Closeness) -> tuple[NoiseName, ...]:
    """The noise sources that err no more than `limit`; none where it is closer than any sampler."""
    return tuple(kind.name for kind in _SOURCES.values() if limit.covers(kind.closeness))


def discrete_gaussian_closeness(sigma: float, reach: float) -> tuple[float, float]:
    """(η, τ) of the discrete Gaussian of parameter σ ≥ 1 against round(N(0, σ²)).

    reach: t ≥ 1; the law is compared point by point on |x| ≤ t·σ, what lies beyond is τ.

    η = t²/(8σ²) + 4·exp(−2π²σ²),  τ = 2·exp(−(t − 1/(2σ))²/2).
    Proof in docs/privacy/promise.md, "The discrete Gaussian".
    """
    if sigma < 1.0 or reach < 1.0:
        raise ValueError(f"sigma and reach must be at least 1, not {sigma} and {reach}")
    eta = reach**2 / (8.0 * sigma**2) + 4.0 * math.exp(-2.0 * (math.pi * sigma) ** 2)
    tau = 2.0 * math.exp(-((reach - 0.5 / sigma) ** 2) / 2.0)
    return eta, tau


def noise_epsilon(draws: int, eta: float) -> float:
    """What `draws` draws add to ε: 2nη."""
    if draws < 0:
        raise ValueError(f"draws must be at least 0, not {draws}")
    return 2.0 * draws * eta


def noise_delta(draws: int, epsilon: float, tau: float) -> float:
    """What `draws` draws add to δ: n·τ·(1 + e^ε), at the whole ε (`noise_epsilon` included)."""
    if draws < 0:
        raise ValueError(f"draws must be at least 0, not {draws}")
    if draws == 0 or tau == 0.0:
        return 0.0
    exponent = math.log(draws) + math.log(tau) + epsilon
    # Past 1 the statement is empty; the exponential is not formed there.
    return math.inf if exponent > 700.0 else draws * tau + math.exp(exponent)


def ideal_target(
    epsilon: float, delta: float, draws: int, closeness: Closeness
) -> tuple[float, float]:
    """The (ε, δ) to account for with ideal noise, so that real noise keeps `epsilon`, `delta`.

    The inverse of the statement above: (ε − 2nη, (δ − n·τ·(1 + e^ε))·e^{−nη}). Either may come out
    at or below 0, where so many draws cannot be afforded.
    """
    left = delta - noise_delta(draws, epsilon, closeness.tau)
    growth = math.exp(-min(draws * closeness.eta, 700.0))
    return epsilon - noise_epsilon(draws, closeness.eta), left * growth


def _kind(name: str) -> type[RoundedGaussian] | type[DiscreteGaussian]:
    if name not in _SOURCES:
        raise ValueError(f"no noise source is called {name!r}; there are {', '.join(_SOURCES)}")
    return _SOURCES[name]


def _opendp_gaussian(scale: float) -> Any:
    """OpenDP's Gaussian measurement on integer vectors, loaded late: the import takes a second."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    return dp.m.make_gaussian(*space, scale=scale)
