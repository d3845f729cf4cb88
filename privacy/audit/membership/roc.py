"""True-positive rates at small false-positive rates, with what chance may have done to them.

A score is computed for members and for non-members; a trial is positive when its score lies above
a threshold. The threshold is an order statistic of the non-members' scores, so that the false
positives' true rate is Beta-distributed whatever the law of the scores, with the Clopper-Pearson
upper bound; the members' scores are independent of it, so that theirs is the binomial's. Nothing is
held out, and nothing is assumed but that trials are independent.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from privacy.audit.clopper_pearson import rate_lower, rate_upper
from privacy.audit.membership.trade_off import Claim

RATES = (1e-3, 1e-2)
"""The false-positive rates at which attacks are compared (Carlini et al. 2022)."""


@dataclass(frozen=True)
class OperatingPoint:
    """One point of an attack's ROC curve.

    rate: the false-positive rate that was asked for; the measured one is at most this.
    threshold: scores above it are positive.
    true_positives, members, false_positives, non_members: counts.
    low, high: two-sided Clopper-Pearson interval of the true-positive rate at `confidence`.
    false_high: one-sided upper bound of the false-positive rate, with error (1 − confidence)/2.
    """

    rate: float
    threshold: float
    true_positives: int
    members: int
    false_positives: int
    non_members: int
    confidence: float
    low: float
    high: float
    false_high: float

    @property
    def true_rate(self) -> float:
        """The measured true-positive rate."""
        return self.true_positives / self.members

    @property
    def mu(self) -> float:
        """Lower bound of μ, with error 1 − confidence: Φ⁻¹(TPR) − Φ⁻¹(FPR) at their bounds."""
        if self.low <= 0.0 or self.false_high >= 1.0:
            return 0.0
        return max(0.0, float(ndtri(self.low) - ndtri(self.false_high)))

    def exceeds(self, claim: Claim) -> bool:
        """Whether the claim is refuted, with error 1 − confidence.

        The cap is taken at the upper bound of the false-positive rate and compared with the lower
        bound of the true-positive rate: each is wrong with probability (1 − confidence)/2.
        """
        return self.low > float(claim.cap(self.false_high))


def operating_point(
    members: npt.ArrayLike, non_members: npt.ArrayLike, rate: float, confidence: float = 0.95
) -> OperatingPoint:
    """The point at which at most the share `rate` of the non-members is positive.

    members, non_members: float scores [n], [m], higher where the attacker believes "member".
    Raises ValueError for an empty or non-finite score, and for a rate or confidence outside (0, 1).
    """
    inside, outside = _scores(members, "members"), _scores(non_members, "non-members")
    if not (0.0 < rate < 1.0 and 0.0 < confidence < 1.0):
        raise ValueError("rate and confidence lie between 0 and 1")
    allowed = int(rate * len(outside) * (1.0 + 1e-12))
    threshold = float(np.sort(outside)[::-1][allowed])
    found = int((inside > threshold).sum())
    wrong = int((outside > threshold).sum())
    error = (1.0 - confidence) / 2.0
    return OperatingPoint(
        rate=rate,
        threshold=threshold,
        true_positives=found,
        members=len(inside),
        false_positives=wrong,
        non_members=len(outside),
        confidence=confidence,
        low=rate_lower(found, len(inside), error),
        high=rate_upper(found, len(inside), error),
        # By `allowed` and not by `wrong`: the threshold was chosen from these very scores.
        false_high=rate_upper(allowed, len(outside), error),
    )


def _scores(values: npt.ArrayLike, whose: str) -> npt.NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores) or not bool(np.isfinite(scores).all()):
        raise ValueError(f"the scores of {whose} are one list of finite numbers, and not empty")
    return scores
