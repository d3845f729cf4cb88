"""What an attacker reads off answers: one number a target, as telling as the answers allow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from privacy.audit.membership.likelihood_ratio import fit

Floats = npt.NDArray[np.float64]


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
    fitted = fit(values.reshape(len(values), -1), np.repeat(inside, values.shape[2], axis=1))
    if fitted.mean_in is None or fitted.sd_in is None:
        raise ValueError("no shadow run has a target in: there is no difference to look for")
    variance = (fitted.sd_in**2 + fitted.sd_out**2) / 2.0 + noise_sd**2
    weights = ((fitted.mean_in - fitted.mean_out) / variance).reshape(values.shape[1:])
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
