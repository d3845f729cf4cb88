"""A lower bound of ε from one training run with many canaries (Steinke, Nasr & Jagielski 2023).

Each of m canaries is included by a fair coin. The auditor sees the result and guesses r of the
coins, abstaining on the rest; v guesses are right. Under (ε, δ)-DP with respect to adding or
removing one record (Theorem 5.2 and Algorithm of Appendix D there)

    Pr[≥ v right] ≤ β + 2·m·δ·α,    β = Pr[Bin(r, q) ≥ v],    q = e^ε/(1 + e^ε),
    α = max over 1 ≤ i ≤ v of Pr[v > Bin(r, q) ≥ v − i] / i.

An ε at which the right-hand side lies below 1 − confidence is refuted.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp


@dataclass(frozen=True)
class OneRun:
    """What one run showed.

    canaries: m. guesses: r, of which `right` (v) were right.
    epsilon: the lower bound at `delta` and `confidence`, under add/remove.
    """

    canaries: int
    guesses: int
    right: int
    delta: float
    confidence: float
    epsilon: float

    def exceeds(self, epsilon: float) -> bool:
        """Whether a claimed add/remove ε (at the same δ) is refuted."""
        return self.epsilon > epsilon


def audit(
    scores: npt.ArrayLike,
    included: npt.ArrayLike,
    *,
    positive: int,
    negative: int,
    delta: float,
    confidence: float = 0.95,
) -> OneRun:
    """Guesses "in" for the `positive` highest scores and "out" for the `negative` lowest.

    scores: float [m], higher where the canary seems to be in. included: bool [m], the coins.
    Both numbers must be fixed before the coins are looked at, or the confidence is not what it
    says. Ties are broken by position, which knows nothing of the coins.

    Raises ValueError for scores that are not finite, and for more guesses than canaries.
    """
    values, coins = np.asarray(scores, dtype=np.float64), np.asarray(included)
    if values.ndim != 1 or values.shape != coins.shape or coins.dtype != np.bool_:
        raise ValueError("scores are numbers [m] and included is bool [m], of one length")
    if not bool(np.isfinite(values).all()):
        raise ValueError("a score is not finite")
    if positive < 0 or negative < 0 or not 0 < positive + negative <= len(values):
        raise ValueError(f"{positive} + {negative} guesses on {len(values)} canaries")
    order = np.argsort(values, kind="stable")
    right = int((~coins[order[:negative]]).sum() + coins[order[len(values) - positive :]].sum())
    guesses = positive + negative
    bound = epsilon_lower_bound(len(values), guesses, right, delta, confidence)
    return OneRun(len(values), guesses, right, delta, confidence, bound)


def log_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """log of the bound on Pr[at least `right` of `guesses` right] under (ε, δ)-DP; at most 0."""
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} right of {guesses} guesses on {canaries} canaries")
    if not (epsilon >= 0.0 and 0.0 <= delta <= 1.0):
        raise ValueError(f"not a privacy claim: epsilon {epsilon}, delta {delta}")
    law = _log_binomial(guesses, epsilon)
    terms = [float(logsumexp(law[right:]))]
    if delta > 0.0 and right > 0:
        # Entry i − 1: log Pr[v > Bin ≥ v − i].
        below = np.logaddexp.accumulate(law[right - 1 :: -1])
        alpha = float((below - np.log(np.arange(1, right + 1))).max())
        terms.append(alpha + math.log(2.0 * canaries * delta))
    return min(0.0, float(logsumexp(terms)))


def epsilon_lower_bound(
    canaries: int, guesses: int, right: int, delta: float, confidence: float = 0.95
) -> float:
    """The largest ε that is refuted at `confidence`; 0 where none is.

    Found by bisection from above 0, as the paper does; rounded downwards.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence}")
    target = math.log1p(-confidence)

    def refuted(epsilon: float) -> bool:
        return log_p_value(canaries, guesses, right, epsilon, delta) < target

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2.0 * high
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _log_binomial(count: int, epsilon: float) -> npt.NDArray[np.float64]:
    """log Pr[Bin(count, e^ε/(1 + e^ε)) = 0 … count]: float64 [count + 1]."""
    right = np.arange(count + 1)
    ways = gammaln(count + 1.0) - gammaln(right + 1.0) - gammaln(count - right + 1.0)
    # log q = −log(1 + e^−ε) and log(1 − q) = log q − ε keep their digits where q rounds to 1.
    law: npt.NDArray[np.float64] = (
        ways - count * math.log1p(math.exp(-epsilon)) - (count - right) * epsilon
    )
    return law
