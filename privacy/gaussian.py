"""The exact privacy curve of Gaussian noise: δ(ε, μ) and its two inverses.

A mechanism is μ-GDP when telling two adjacent data sets apart from its output is at least as hard
as telling N(0, 1) from N(μ, 1) (Dong, Roth & Su 2022, Definition 4). Noise of standard deviation
σ on a vector of L2 sensitivity Δ is exactly (Δ/σ)-GDP, and its curve is

    δ(ε, μ) = Φ(−ε/μ + μ/2) − e^ε · Φ(−ε/μ − μ/2)              (Balle & Wang 2018, Theorem 8).

With x = ε/μ − μ/2 and y = x + μ one has e^ε φ(y) = φ(x), hence, with Mills' ratio
M(t) = Φ(−t)/φ(t) = √(π/2)·erfcx(t/√2),

    δ = φ(x) · (M(x) − M(y)).

No e^ε is formed and the tail is a factor, so that this holds from ε = 1e-6 to 1e3 and for δ far
below the smallest float (as log δ). For small μ the two values of M would cancel; there the
difference is the integral of −M'(t) = 1 − t·M(t) over [x, y], by three Gauss-Legendre points.
Relative error of δ: under 1e-12 on ε ∈ [1e-6, 1e3], δ ∈ [1e-30, 1/2] (measured against mpmath).
"""

import math

from scipy.optimize import brentq
from scipy.special import erfcx

_SQRT2 = math.sqrt(2.0)
_SQRT_HALF_PI = math.sqrt(math.pi / 2.0)
# Below this μ the integral is used; the rule's own error there is of order μ⁷.
_SMALL_MU = 0.01
_GAUSS_LEGENDRE = ((-math.sqrt(0.6), 5.0 / 9.0), (0.0, 8.0 / 9.0), (math.sqrt(0.6), 5.0 / 9.0))


def log_delta(epsilon: float, mu: float) -> float:
    """Natural logarithm of δ(ε, μ); −inf where μ = 0. ε ≥ 0, μ ≥ 0."""
    _check(epsilon, mu)
    if mu == 0.0:
        return -math.inf
    x = epsilon / mu - mu / 2.0
    y = x + mu
    if mu < _SMALL_MU:
        middle = x + mu / 2.0
        slope = sum(w * _mills_slope(middle + n * mu / 2.0) for n, w in _GAUSS_LEGENDRE)
        if slope <= 0.0:
            return -math.inf
        # φ(x) · (μ/2) · Σ wᵢ (1 − tᵢ M(tᵢ)), with φ(x) = exp(−x²/2)/√(2π)
        return -x * x / 2.0 + math.log(mu * slope / (4.0 * _SQRT_HALF_PI))
    if x < 0.0:
        # φ(x)·M(y) ≤ 1/2 ≤ Φ(−x), so this difference keeps its digits; erfcx(x) may overflow.
        tail = 0.5 * math.exp(-x * x / 2.0) * float(erfcx(y / _SQRT2))
        value = 0.5 * math.erfc(x / _SQRT2) - tail
        return math.log(value) if value > 0.0 else -math.inf
    difference = float(erfcx(x / _SQRT2)) - float(erfcx(y / _SQRT2))
    if difference <= 0.0:
        return -math.inf
    return -x * x / 2.0 + math.log(0.5 * difference)


def delta(epsilon: float, mu: float) -> float:
    """The smallest δ for which μ-GDP implies (ε, δ)-DP.

    Balle & Wang 2018, Theorem 8; Dong, Roth & Su 2022, Corollary 1.
    """
    return math.exp(log_delta(epsilon, mu))


def epsilon(delta: float, mu: float) -> float:
    """The smallest ε for which μ-GDP implies (ε, δ)-DP: the inverse of `delta` in ε.

    Rounded upwards, so that δ(result, μ) ≤ `delta`. 0 < delta < 1, μ ≥ 0.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie in (0, 1), not {delta}")
    target = math.log(delta)
    if log_delta(0.0, mu) <= target:
        return 0.0
    # δ ≤ Φ(−x) ≤ exp(−x²/2): at x = √(2 log 1/δ) the curve is already below the target.
    high = mu * math.sqrt(-2.0 * target) + mu * mu / 2.0
    root = float(brentq(lambda e: log_delta(e, mu) - target, 0.0, high, xtol=1e-300, rtol=1e-15))
    step = 1e-15
    while log_delta(root, mu) > target:
        root += step * max(root, 1e-300)
        step *= 2.0
    return root


def mu(epsilon: float, delta: float) -> float:
    """The largest μ for which μ-GDP implies (ε, δ)-DP: the inverse of `delta` in μ.

    Rounded downwards, so that δ(ε, result) ≤ `delta`. ε ≥ 0, 0 < delta < 1.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie in (0, 1), not {delta}")
    _check(epsilon, 0.0)
    target = math.log(delta)
    high = 1.0
    while log_delta(epsilon, high) < target:
        high *= 2.0
    low = high / 2.0
    while log_delta(epsilon, low) >= target:
        low /= 2.0
    root = low
    if math.isfinite(log_delta(epsilon, low)):
        root = float(
            brentq(lambda m: log_delta(epsilon, m) - target, low, high, xtol=1e-300, rtol=1e-15)
        )
    else:
        root = _bisect(epsilon, target, low, high)
    step = 1e-15
    while log_delta(epsilon, root) > target:
        root -= step * root
        step *= 2.0
    return root


def _mills_slope(t: float) -> float:
    """−M'(t) = 1 − t·M(t) for Mills' ratio M."""
    return 1.0 - t * _SQRT_HALF_PI * float(erfcx(t / _SQRT2))


def _bisect(epsilon: float, target: float, low: float, high: float) -> float:
    """Like brentq where log δ is −inf at the lower end."""
    while high - low > 1e-15 * high:
        middle = (low + high) / 2.0
        if log_delta(epsilon, middle) > target:
            high = middle
        else:
            low = middle
    return low


def _check(epsilon: float, mu: float) -> None:
    if not (math.isfinite(epsilon) and epsilon >= 0.0):
        raise ValueError(f"epsilon must be finite and at least 0, not {epsilon}")
    if not (math.isfinite(mu) and mu >= 0.0):
        raise ValueError(f"mu must be finite and at least 0, not {mu}")
