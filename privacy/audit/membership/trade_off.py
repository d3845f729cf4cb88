"""What a privacy claim allows an attacker: the highest true-positive rate at a false-positive rate.

An attacker decides between two adjacent data sets. At false-positive rate α a claim caps the
true-positive rate of *every* attack, whatever it knows and asks:

    (ε, δ)-DP:  min( e^ε·α + δ,  1 − e^{−ε}·(1 − α − δ) )     (Wasserman & Zhou 2010, Theorem 2.4;
                                                              Kairouz, Oh & Viswanath 2015)
    μ-GDP:      Φ( Φ⁻¹(α) + μ )                               (Dong, Roth & Su 2022, eq. 6)

Both are concave in α, so that a rate that is averaged over targets obeys the same cap.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.float64]


def approximate_cap(rate: npt.ArrayLike, epsilon: float, delta: float) -> Floats:
    """Highest true-positive rate at false-positive `rate` [...] under (ε, δ)-DP: float64 [...].

    epsilon, delta: of the claim, under the adjacency that the attack plays.
    """
    alpha = _rates(rate)
    if not (epsilon >= 0.0 and 0.0 <= delta <= 1.0):
        raise ValueError(f"not a privacy claim: epsilon {epsilon}, delta {delta}")
    with np.errstate(divide="ignore"):
        # e^ε·α as one exponential: neither factor overflows, and above 1 it does not matter.
        raised = np.exp(np.minimum(np.log(alpha) + epsilon, 1.0)) + delta
    lowered = 1.0 - np.exp(-epsilon) * (1.0 - alpha - delta)
    capped: Floats = np.clip(np.minimum(raised, lowered), 0.0, 1.0)
    return capped


def gaussian_cap(rate: npt.ArrayLike, mu: float) -> Floats:
    """Highest true-positive rate at false-positive `rate` [...] under μ-GDP: float64 [...]."""
    if not mu >= 0.0:
        raise ValueError(f"mu must be at least 0, not {mu}")
    capped: Floats = ndtr(ndtri(_rates(rate)) + mu)
    return capped


@dataclass(frozen=True)
class Claim:
    """What is claimed of everything that the attacker saw.

    epsilon, delta: differential privacy, under the adjacency that the attack plays.
    mu: of the same, where it is known to be μ-GDP (Gaussian answers); the cap is then exact.
    """

    epsilon: float
    delta: float
    mu: float | None = None

    def cap(self, rate: npt.ArrayLike) -> Floats:
        """The tighter of both caps: float64 of the shape of `rate`."""
        capped = approximate_cap(rate, self.epsilon, self.delta)
        return capped if self.mu is None else np.minimum(capped, gaussian_cap(rate, self.mu))


def _rates(rate: npt.ArrayLike) -> Floats:
    alpha = np.asarray(rate, dtype=np.float64)
    if not bool(((alpha >= 0.0) & (alpha <= 1.0)).all()):
        raise ValueError("a false-positive rate lies in [0, 1]")
    return alpha
