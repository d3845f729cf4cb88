"""From counted mistakes to a bound on μ that holds at a stated confidence.

Whoever tells two adjacent worlds apart by a μ-GDP mechanism with false positive rate a makes false
negatives at a rate of at least Φ(Φ⁻¹(1 − a) − μ) (Dong, Roth & Su 2022, Definitions 3 and 4).
Hence any test, good or bad, shows

    μ ≥ Φ⁻¹(1 − FPR) − Φ⁻¹(FNR),

and with both rates replaced by upper confidence bounds (Clopper & Pearson 1934, exact for every
number of trials) the right side is a lower confidence bound on μ.
"""

from dataclasses import dataclass

from scipy.special import bdtrc, ndtr, ndtri

from privacy.audit.clopper_pearson import rate_upper


@dataclass(frozen=True)
class Mistakes:
    """Of `trials` in each world, how many were taken for the other one.

    false_positives: trials of world 1 taken for world 0; false_negatives: the other way about.
    """

    trials: int
    false_positives: int
    false_negatives: int

    def __post_init__(self) -> None:
        for count in (self.false_positives, self.false_negatives):
            if not 0 <= count <= self.trials or self.trials < 1:
                raise ValueError(f"{count} mistakes in {self.trials} trials")


def mu_lower(mistakes: Mistakes, alpha: float) -> float:
    """μ is at least this, wrongly so with probability at most alpha; at least 0."""
    rates = (
        rate_upper(count, mistakes.trials, alpha / 2.0)
        for count in (mistakes.false_positives, mistakes.false_negatives)
    )
    return max(0.0, -sum(float(ndtri(rate)) for rate in rates))


def mu_estimate(mistakes: Mistakes) -> float:
    """μ as it was seen, without any confidence."""
    rates = (
        min(max(count, 0.5), mistakes.trials - 0.5) / mistakes.trials
        for count in (mistakes.false_positives, mistakes.false_negatives)
    )
    return -sum(float(ndtri(rate)) for rate in rates)


def least_expected(distance: float, trials: int, alpha: float, chance: float) -> float:
    """What `mu_lower` falls under with probability at most `chance`, for a known distance.

    distance: μ of two Gaussians that are told apart at the middle between their means.
    """
    rate = float(ndtr(-distance / 2.0))
    low, high = -1, trials
    while high - low > 1:
        middle = (low + high) // 2
        if bdtrc(middle, trials, rate) <= chance / 2.0:
            high = middle
        else:
            low = middle
    return mu_lower(Mistakes(trials, high, high), alpha)


def trials_to_show(part: float, distance: float, alpha: float, chance: float) -> int:
    """Trials, to two digits, of which `mu_lower` stays under `part` of `distance` with probability
    at most `chance`.

    part: below 1. Raises ValueError where not even 10¹² would do.
    """
    decade = 10
    while decade < 10**12:
        for first in range(10, 100):
            trials = first * decade
            if least_expected(distance, trials, alpha, chance) >= part * distance:
                return trials
        decade *= 10
    raise ValueError(f"no audit shows {part:g} of a distance of {distance:g}")
