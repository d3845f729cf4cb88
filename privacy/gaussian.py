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

*The inverses* are Newton's, on a curve that makes them safe:

    ∂ log δ/∂ε     = −M(y) / (M(x) − M(y)),   falling in ε, as log M is convex;
    ∂ log δ/∂log μ = μ / (M(x) − M(y)),       falling in μ, as −M' is positive, falling and convex
                     (M(t) = ∫₀^∞ e^{−ts − s²/2} ds is completely monotone), so that its mean over
                     [ε/μ − μ/2, ε/μ + μ/2] grows with μ.

So log δ is concave in ε and in log μ, a tangent lies above it, and from the second step on every
iterate has δ ≤ target: ε is approached from above and μ from below. An iterate is returned only
when its own `log_delta`, with the bound on its error added, is below the target.
"""

import math

from scipy.special import erfcx

_SQRT2 = math.sqrt(2.0)
_SQRT_HALF_PI = math.sqrt(math.pi / 2.0)
_LOG_SQRT_2PI = math.log(2.0 * math.pi) / 2.0
# Below this μ the integral is used. The rule errs by at most 48·μ⁶/2,016,000 < 2·10⁻¹⁴ (relative).
_SMALL_MU = 0.03
_NODE = math.sqrt(0.6)


def log_delta(epsilon: float, mu: float) -> float:
    """Natural logarithm of δ(ε, μ); −inf where μ = 0. ε ≥ 0, μ ≥ 0.

    Within `log_delta_error` of the exact value where that is above −700.
    """
    _check(epsilon, mu)
    if mu == 0.0:
        return -math.inf
    return _curve(epsilon, mu)[0]


def log_delta_error(mu: float, log_delta: float) -> float:
    """Bound on the error of `log_delta` near the given value: about 1e-12.

    The second term is the rounding of x = ε/μ − μ/2, of which x² is taken. Measured against mpmath
    in tests/privacy/test_gaussian.py: at most 0.3 of this bound, down to δ = 1e-299.
    """
    return 1e-12 + 5e-16 * mu * math.sqrt(max(-2.0 * log_delta, 1.0))


def delta(epsilon: float, mu: float) -> float:
    """The smallest δ for which μ-GDP implies (ε, δ)-DP.

    Balle & Wang 2018, Theorem 8; Dong, Roth & Su 2022, Corollary 1.
    """
    return math.exp(log_delta(epsilon, mu))


def epsilon(delta: float, mu: float) -> float:
    """The smallest ε for which μ-GDP implies (ε, δ)-DP: the inverse of `delta` in ε.

    Rounded upwards, so that δ(result, μ) ≤ `delta`. 0 < delta < 1, μ ≥ 0.
    """
    target = _log_target(delta)
    _check(0.0, mu)
    if mu == 0.0:
        return 0.0
    error = log_delta_error(mu, target)
    # δ(0, μ) = 2Φ(μ/2) − 1
    if math.erf(mu / (2.0 * _SQRT2)) * (1.0 + error) <= delta:
        return 0.0
    root = _near_epsilon(target, mu)
    for _ in range(60):
        value, tail, _ = _curve(root, mu)
        excess = value - target
        if -3.0 * error <= excess <= -error:
            return root
        if tail == 0.0:
            break
        # To the middle of that window.
        root = max(0.0, root + (excess + 2.0 * error) / tail)
    step = 1e-15
    while _curve(root, mu)[0] > target - error:
        root += step * max(root, 1e-300)
        step *= 2.0
    return root


def mu(epsilon: float, delta: float) -> float:
    """The largest μ for which μ-GDP implies (ε, δ)-DP: the inverse of `delta` in μ.

    Rounded downwards, so that δ(ε, result) ≤ `delta`. ε ≥ 0, 0 < delta < 1.
    """
    target = _log_target(delta)
    _check(epsilon, 0.0)
    # Two lower bounds: δ ≤ exp(−x²/2) for x ≥ 0, and δ ≤ δ(0, μ) ≤ μ/√(2π).
    reach = math.sqrt(-2.0 * target)
    root = max(2.0 * epsilon / (reach + math.sqrt(reach * reach + 2.0 * epsilon)), 2.5 * delta)
    for _ in range(200):
        error = log_delta_error(root, target)
        value, _, slope = _curve(epsilon, root)
        excess = value - target
        if -3.0 * error <= excess <= -error:
            return root
        if slope == 0.0:
            break
        root *= math.exp(-(excess + 2.0 * error) / slope)
    step = 1e-15
    while _curve(epsilon, root)[0] > target - log_delta_error(root, target):
        root -= step * root
        step *= 2.0
    return root


def _curve(epsilon: float, mu: float) -> tuple[float, float, float]:
    """log δ, −∂ log δ/∂ε and ∂ log δ/∂ log μ, for μ > 0; (−inf, 0, 0) where δ underflows."""
    x = epsilon / mu - mu / 2.0
    y = x + mu
    mills_y = _SQRT_HALF_PI * float(erfcx(y / _SQRT2))
    log_density = -x * x / 2.0 - _LOG_SQRT_2PI
    if mu < _SMALL_MU:
        middle = x + mu / 2.0
        reach = _NODE * mu / 2.0
        outer = _mills_slope(middle - reach) + _mills_slope(middle + reach)
        difference = mu * (5.0 * outer + 8.0 * _mills_slope(middle)) / 18.0
    elif x < 0.0:
        # φ(x)·M(y) ≤ 1/2 ≤ Φ(−x), so this difference keeps its digits; erfcx(x) may overflow.
        density = math.exp(log_density)
        value = 0.5 * math.erfc(x / _SQRT2) - density * mills_y
        return math.log(value), density * mills_y / value, mu * density / value
    else:
        difference = _SQRT_HALF_PI * float(erfcx(x / _SQRT2)) - mills_y
    if difference <= 0.0:
        return -math.inf, 0.0, 0.0
    return log_density + math.log(difference), mills_y / difference, mu / difference


def _near_epsilon(target: float, mu: float) -> float:
    """A start for Newton: log δ ≈ −x²/2 + log(M(x) − M(y)) with M(t) ≈ 1/(t + 0.8)."""
    x = math.sqrt(-2.0 * target)
    for _ in range(2):
        difference = mu / ((x + 0.8) * (x + mu + 0.8))
        square = 2.0 * (math.log(difference) - _LOG_SQRT_2PI - target)
        x = math.sqrt(square) if square > 0.0 else 0.0
    return mu * (x + mu / 2.0)


def _mills_slope(t: float) -> float:
    """−M'(t) = 1 − t·M(t) for Mills' ratio M."""
    return 1.0 - t * _SQRT_HALF_PI * float(erfcx(t / _SQRT2))


def _log_target(delta: float) -> float:
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie in (0, 1), not {delta}")
    return math.log(delta)


def _check(epsilon: float, mu: float) -> None:
    if not (math.isfinite(epsilon) and epsilon >= 0.0):
        raise ValueError(f"epsilon must be finite and at least 0, not {epsilon}")
    if not (math.isfinite(mu) and mu >= 0.0):
        raise ValueError(f"mu must be finite and at least 0, not {mu}")
