"""Clean answers for the planner: a stated model, in place of what is private.

Per sample, a teacher names the true class with probability p ~ Beta(a, 1 − a), a the accuracy of
one teacher, and the other classes by a Dirichlet(1/2) split of 1 − p; the k teachers vote
independently given the sample. At a = 0.81 on 10 classes the plurality is right for 91 % of the
samples, which is what 200 teachers of that accuracy reached on glyphs. A teacher puts `confidence`
of its probability on its vote and spreads the rest evenly; softening at T > 1 lowers it.
"""

import math

import numpy as np
import numpy.typing as npt

from privacy.audit.proposal import Proposal
from privacy.errors import InvalidPlan
from privacy.release import TapRelease

Shares = npt.NDArray[np.float64]

_SIMULATED_VALUES = 1_000_000
_MEASURED_ROWS = 5_000


def model_shares(
    samples: int,
    classes: int,
    teachers: int,
    accuracy: float,
    confidence: float,
    rng: np.random.Generator,
) -> Shares:
    """Mean answers of `teachers` teachers under the model: float64 [samples, classes]."""
    # A point mass where every teacher is always right; Beta needs both parameters above 0.
    right = rng.beta(accuracy, max(1.0 - accuracy, 1e-9), samples)
    split = rng.dirichlet(np.full(classes - 1, 0.5), samples)
    law = np.concatenate([right[:, None], split * (1.0 - right)[:, None]], axis=1)
    votes = rng.multinomial(teachers, law / law.sum(axis=1, keepdims=True)) / teachers
    mean: Shares = confidence * votes + (1.0 - confidence) / classes
    return mean


def top1_agreement(clean: Shares, noise_sd: float, rng: np.random.Generator) -> tuple[float, float]:
    """Share of rows whose largest value survives noise of `noise_sd`, and its standard error.

    clean: float64 [n, classes], in the same units as the noise.
    """
    noisy = clean + rng.normal(0.0, noise_sd, clean.shape)
    # Ties in the clean votes are broken at random, as the noise would.
    tied = clean + rng.uniform(0.0, 1e-9, clean.shape)
    same = float(np.mean(noisy.argmax(axis=1) == tied.argmax(axis=1)))
    return same, math.sqrt(max(same * (1.0 - same), 1.0 / len(clean)) / len(clean))


def clean_answers(
    release: TapRelease,
    proposal: Proposal,
    shares: npt.ArrayLike | None,
    rng: np.random.Generator,
) -> Shares:
    classes = release.dimension
    if classes < 2:
        raise InvalidPlan(f"tap {release.name!r} needs at least 2 classes, not {classes}")
    if shares is None:
        samples = max(500, min(20_000, _SIMULATED_VALUES // classes))
        mean = model_shares(
            samples,
            classes,
            release.teachers,
            proposal.teacher_accuracy,
            proposal.confidence,
            rng,
        )
    else:
        measured = np.asarray(shares, dtype=np.float64)
        if measured.ndim != 2 or measured.shape[1] != classes or not len(measured):
            raise InvalidPlan(f"measured shares must be [n, {classes}], not {measured.shape}")
        if not np.isfinite(measured).all():
            raise InvalidPlan("measured shares must be finite")
        mean = np.tile(measured, (math.ceil(_MEASURED_ROWS / len(measured)), 1))
    if release.kind == "probabilities":
        return mean
    # A confident teacher's centred logits point along its centred class vector, at norm B.
    logits: Shares = (mean - 1.0 / classes) * (release.bound / math.sqrt(1.0 - 1.0 / classes))
    return logits


def model_sentence(proposal: Proposal, measured: bool, *, grid: bool = False) -> str:
    """What the clean answers are, for a screen; of one proposal, or of a grid like it."""
    if measured:
        return "clean answers: the vote shares that were given"
    voters = "k" if grid else f"{proposal.teachers:,}"
    doubt = "real teachers may agree more or less"
    if grid:
        doubt += ", and lose accuracy as k takes records from each: --simulate measures both"
    return (
        f"clean answers: a model of {voters} independent voters, each right with probability "
        f"{proposal.teacher_accuracy:.2f} on average and putting {proposal.confidence:.2f} on its "
        f"vote; {doubt}"
    )
