"""The figure that the published private model compression claims, which is not a guarantee.

RONA (Wang et al. 2019) accounts T answers with noise σ on sensitivity Δ as a *sub-sampled* Gaussian
mechanism at the rate q at which public queries are drawn. Amplification by sub-sampling needs a
secret random subset of the records that are protected; here the subset is one of public samples,
every answer depends on every private record, and the figure below protects nobody. See
docs/privacy/published-accounting.md. It is printed only beside the sound figure.
"""

from dataclasses import dataclass

from privacy import gaussian
from privacy.composition import DpSgdRun
from privacy.composition import epsilon as composed_epsilon
from privacy.promise import Adjacency

AS_PUBLISHED = "as published, not a guarantee"


@dataclass(frozen=True)
class PublishedComparison:
    """`claimed` under RONA's accounting and `sound`, both ε at the same δ."""

    claimed: float
    sound: float
    label: str = AS_PUBLISHED


def published_epsilon(
    noise_over_sensitivity: float, query_rate: float, answers: int, delta: float
) -> PublishedComparison:
    """ε of `answers` answers at noise σ/Δ, as published (rate q < 1) and soundly.

    The published moments accountant is replaced by the tighter privacy loss distribution, so that
    `claimed` is if anything below the figure in the paper.
    """
    run = DpSgdRun(query_rate, noise_over_sensitivity, answers)
    claimed = composed_epsilon([run], 0.0, delta, Adjacency.ADD_REMOVE)
    sound = gaussian.epsilon(delta, answers**0.5 / noise_over_sensitivity)
    return PublishedComparison(claimed, sound)
