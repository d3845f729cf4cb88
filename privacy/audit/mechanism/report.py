"""What the audit of a mechanism found, and whether the claim stands."""

from dataclasses import asdict, dataclass
from typing import Any

from privacy.audit.mechanism.noise_checks import Check
from privacy.audit.mechanism.statistics import (
    least_expected,
    mu_estimate,
    mu_lower,
    trials_to_show,
)
from privacy.audit.mechanism.trials import Trials

WIRED = 0.9
"""An audit whose lower bound stays under this part of what it should see is mis-wired itself, or
has too few trials to show anything."""

_CHANCE = 1e-8
"""With which a right service may stay under what a case asks for."""


@dataclass(frozen=True)
class Judged:
    """One case against its claim.

    name, what: of the case. alpha: the bound is wrong with at most this probability. least: the
    lower bound must reach this much: 0.9 of the distance of the two worlds, or what so few trials
    show of it but once in 10⁸ audits.
    """

    name: str
    what: str
    trials: Trials
    alpha: float

    @property
    def lower(self) -> float:
        return mu_lower(self.trials.mistakes, self.alpha)

    @property
    def estimate(self) -> float:
        return mu_estimate(self.trials.mistakes)

    @property
    def least(self) -> float:
        distance, count = self.trials.distance, self.trials.mistakes.trials
        return min(WIRED * distance, least_expected(distance, count, self.alpha, _CHANCE))

    @property
    def fault(self) -> str | None:
        """Why the case fails; None when it passes."""
        if self.lower > self.trials.claim:
            return f"leaks more than it charges: μ ≥ {self.lower:.4f} of {self.trials.claim:.4f}"
        if self.lower < self.least:
            return (
                f"shows too little: μ ≥ {self.lower:.4f}, and {self.least:.4f} was to be seen; the "
                "audit or the service is mis-wired"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        mistakes = self.trials.mistakes
        return {
            "case": self.name,
            "what": self.what,
            "trials_a_side": mistakes.trials,
            "samples_a_trial": self.trials.per_trial,
            "false_positives": mistakes.false_positives,
            "false_negatives": mistakes.false_negatives,
            "claimed_mu": self.trials.claim,
            "known_distance": self.trials.distance,
            "estimated_mu": self.estimate,
            "mu_lower": self.lower,
            "least_to_be_seen": self.least,
            "alpha": self.alpha,
            "fault": self.fault,
        }


@dataclass(frozen=True)
class Audit:
    """The whole audit. confidence: that all lower bounds hold together."""

    judged: tuple[Judged, ...]
    checks: tuple[Check, ...]
    confidence: float
    check_alpha: float
    seconds: float
    samples: int

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that fails, worst cases first; empty when the claim stands."""
        cases = [f"{case.name}: {case.fault}" for case in self.judged if case.fault]
        checks = [
            f"{check.name}: {check.figure:.4g} {check.unit}, at most {check.limit:.4g}"
            + (f" ({check.detail})" if check.detail else "")
            for check in self.checks
            if not check.holds
        ]
        return (*cases, *checks)

    @property
    def inconclusive(self) -> str | None:
        """Why an audit without faults proves little; None where its main case shows enough."""
        main = self.judged[0]
        claim, trials = main.trials.claim, main.trials.mistakes.trials
        if self.faults or main.lower >= WIRED * claim:
            return None
        shown = f"{trials:,} trials show at least {main.lower / claim:.2f} of the claim"
        try:
            needed = trials_to_show(WIRED, main.trials.distance, main.alpha, _CHANCE)
        except ValueError:
            return f"{shown}, and no number of them shows {WIRED:g}: lower --mu"
        return f"{shown}; {needed:,} are needed to be sure to show {WIRED:g}"

    def to_json(self) -> dict[str, Any]:
        return {
            "sound": not self.faults,
            "conclusive": not self.faults and self.inconclusive is None,
            "inconclusive": self.inconclusive,
            "faults": list(self.faults),
            "confidence": self.confidence,
            "check_alpha": self.check_alpha,
            "cases": [case.to_json() for case in self.judged],
            "checks": [asdict(check) | {"holds": check.holds} for check in self.checks],
            "samples_asked": self.samples,
            "seconds": self.seconds,
        }
