"""The likelihood-ratio attack (LiRA; Carlini, Chien, Nasr, Song, Terzis & Tramèr 2022).

The attacker trains shadow models, half of them with the target in, and fits to the statistic of
each target one Gaussian for "in" and one for "out". The score of a target is the log ratio of both
at what was observed; *offline*, where no shadow model has seen the target, it is how far the
observation lies above what "out" explains.

A service answers with a mean of k teachers plus Gaussian noise whose deviation is public. That
noise need not be learnt from shadow models: it is added to the fitted variances (`noise_sd`). Where
many values were answered, `matched` first weighs them into one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

Floats = npt.NDArray[np.float64]

_SMALLEST_SD = 1e-6
"""Shadow models that agree to the last digit must not make a ratio infinite."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Gaussians of T targets' statistic: each float64 [T]. Without "in": an offline attack."""

    mean_in: Floats | None
    sd_in: Floats | None
    mean_out: Floats
    sd_out: Floats

    def log_ratio(self, observed: npt.ArrayLike, noise_sd: npt.ArrayLike = 0.0) -> Floats:
        """log N(observed; in) − log N(observed; out): float64 of the shape of `observed` [..., T].

        noise_sd: [] or [T], of known noise on the observed statistic that no shadow model had.
        """
        if self.mean_in is None or self.sd_in is None:
            raise ValueError("the shadow models never had a target in: use `offline`")
        values = np.asarray(observed, dtype=np.float64)
        inside = norm.logpdf(values, self.mean_in, _with(self.sd_in, noise_sd))
        ratio: Floats = inside - norm.logpdf(values, self.mean_out, _with(self.sd_out, noise_sd))
        return ratio

    def offline(self, observed: npt.ArrayLike, noise_sd: npt.ArrayLike = 0.0) -> Floats:
        """−log Pr[N(out) > observed]: one-sided, for a statistic that grows with membership."""
        values = np.asarray(observed, dtype=np.float64)
        score: Floats = -norm.logsf(values, self.mean_out, _with(self.sd_out, noise_sd))
        return score


def fit(shadow: npt.ArrayLike, member: npt.ArrayLike, *, shared_variance: bool = False) -> Fitted:
    """Fits the Gaussians of each target.

    shadow: float [S, T], the statistic of T targets in S shadow runs, without noise.
    member: bool [S, T], whether the target was in. If it never is: an offline fit.
    shared_variance: one deviation for all targets, better where shadow runs are few (the same
        paper, section VI.C).

    Raises ValueError where a target has fewer than two runs on a side that is needed.
    """
    values, inside = np.asarray(shadow, dtype=np.float64), np.asarray(member, dtype=bool)
    if values.ndim != 2 or values.shape != inside.shape:
        raise ValueError(
            f"shadow {values.shape} and member {inside.shape} are both [runs, targets]"
        )
    if not bool(np.isfinite(values).all()):
        raise ValueError("a shadow statistic is not finite")
    mean_out, sd_out = _gaussian(values, ~inside, shared_variance)
    if not inside.any():
        return Fitted(None, None, mean_out, sd_out)
    mean_in, sd_in = _gaussian(values, inside, shared_variance)
    return Fitted(mean_in, sd_in, mean_out, sd_out)


def matched(shadow: npt.ArrayLike, member: npt.ArrayLike, noise_sd: float) -> tuple[Floats, Floats]:
    """The weights that make one statistic of d answered values, and the noise that it carries.

    shadow: float [S, T, d], clean answers in S shadow runs to what was asked about T targets.
    member: bool [S, T]. noise_sd: of the service's noise on each of the d values.

    A matched filter: the mean difference of "in" and "out" over the variance of each value, noise
    included. Returns weights float64 [T, d], of norm 1, and noise_sd float64 [T] of the statistic
    `statistic(answers, weights)`.
    """
    values, inside = np.asarray(shadow, dtype=np.float64), np.asarray(member, dtype=bool)
    if values.ndim != 3 or values.shape[:2] != inside.shape:
        raise ValueError(f"shadow {values.shape} is [runs, targets, values], member {inside.shape}")
    flat = values.reshape(len(values), -1)
    mask = np.repeat(inside, values.shape[2], axis=1)
    (mean_in, sd_in), (mean_out, sd_out) = (
        _gaussian(flat, chosen, shared=False) for chosen in (mask, ~mask)
    )
    weights = (mean_in - mean_out) / ((sd_in**2 + sd_out**2) / 2.0 + noise_sd**2)
    weights = weights.reshape(values.shape[1:])
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    # Where no difference is seen, any direction is as good.
    weights = np.where(norms > 0.0, weights / np.where(norms > 0.0, norms, 1.0), 0.0)
    return weights, noise_sd * np.linalg.norm(weights, axis=1)


def statistic(answers: npt.ArrayLike, weights: Floats) -> Floats:
    """Answers [..., T, d] weighed to float64 [..., T]."""
    weighed: Floats = (np.asarray(answers, dtype=np.float64) * weights).sum(axis=-1)
    return weighed


def known_means(
    observed: npt.ArrayLike, inside: npt.ArrayLike, outside: npt.ArrayLike, noise_sd: float
) -> Floats:
    """The exact log ratio of an attacker who knows every record but one: float64 [...].

    observed, inside, outside: [..., d]; what was answered, and what would be answered without
    noise with the target in and out. By Neyman & Pearson no attack on these answers is better.
    """
    difference = np.asarray(inside, dtype=np.float64) - np.asarray(outside, dtype=np.float64)
    middle = (np.asarray(inside, dtype=np.float64) + np.asarray(outside, dtype=np.float64)) / 2.0
    if noise_sd <= 0.0:
        raise ValueError("without noise there is no ratio: compare the answers themselves")
    centred = np.asarray(observed, dtype=np.float64) - middle
    ratio: Floats = (centred * difference).sum(axis=-1) / noise_sd**2
    return ratio


def logit_confidence(probability: npt.ArrayLike) -> Floats:
    """log(p/(1 − p)) of the probability of the target's label: nearly Gaussian over models."""
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-12, 1.0 - 1e-12)
    logit: Floats = np.log(p) - np.log1p(-p)
    return logit


def _gaussian(values: Floats, chosen: npt.NDArray[np.bool_], shared: bool) -> tuple[Floats, Floats]:
    """Mean and deviation of the chosen entries of each column."""
    count = chosen.sum(axis=0)
    if bool((count < 2).any()):
        raise ValueError("every target needs at least two shadow runs with it in, and two without")
    mean = np.where(chosen, values, 0.0).sum(axis=0) / count
    squares = np.where(chosen, (values - mean) ** 2, 0.0).sum(axis=0)
    if shared:
        variance = np.full(values.shape[1], squares.sum() / (count - 1).sum())
    else:
        variance = squares / (count - 1)
    return mean, np.maximum(np.sqrt(variance), _SMALLEST_SD)


def _with(sd: Floats, noise_sd: npt.ArrayLike) -> Floats:
    combined: Floats = np.hypot(sd, np.asarray(noise_sd, dtype=np.float64))
    return combined
