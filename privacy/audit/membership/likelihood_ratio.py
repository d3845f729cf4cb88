"""The likelihood-ratio attack (LiRA; Carlini, Chien, Nasr, Song, Terzis & Tramèr 2022).

The attacker trains shadow models, half of them with the target in, and fits to the statistic of
each target one Gaussian for "in" and one for "out". The score of a target is the log ratio of both
at what was observed; *offline*, where no shadow model has seen the target, it is how far the
observation lies above what "out" explains.

A service answers with a mean of k teachers plus Gaussian noise whose deviation is public. That
noise need not be learnt from shadow models: it is added to the fitted variances (`noise_sd`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

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
        inside = _log_density(values, self.mean_in, _with(self.sd_in, noise_sd))
        return inside - _log_density(values, self.mean_out, _with(self.sd_out, noise_sd))

    def offline(self, observed: npt.ArrayLike, noise_sd: npt.ArrayLike = 0.0) -> Floats:
        """−log Pr[N(out) > observed]: one-sided, for a statistic that grows with membership."""
        values = np.asarray(observed, dtype=np.float64)
        score: Floats = -log_ndtr((self.mean_out - values) / _with(self.sd_out, noise_sd))
        return score


def fit(shadow: npt.ArrayLike, member: npt.ArrayLike) -> Fitted:
    """Fits the Gaussians of each target.

    shadow: float [S, T], the statistic of T targets in S shadow runs, without noise.
    member: bool [S, T], whether the target was in. If it never is: an offline fit.

    Raises ValueError where a target has fewer than two runs on a side that is needed.
    """
    values, inside = np.asarray(shadow, dtype=np.float64), np.asarray(member, dtype=bool)
    if values.ndim != 2 or values.shape != inside.shape:
        raise ValueError(
            f"shadow {values.shape} and member {inside.shape} are both [runs, targets]"
        )
    if not bool(np.isfinite(values).all()):
        raise ValueError("a shadow statistic is not finite")
    mean_out, sd_out = _gaussian(values, ~inside)
    if not inside.any():
        return Fitted(None, None, mean_out, sd_out)
    mean_in, sd_in = _gaussian(values, inside)
    return Fitted(mean_in, sd_in, mean_out, sd_out)


def _gaussian(values: Floats, chosen: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mean and deviation of the chosen entries of each column."""
    count = chosen.sum(axis=0)
    if bool((count < 2).any()):
        raise ValueError("every target needs at least two shadow runs with it in, and two without")
    mean = np.where(chosen, values, 0.0).sum(axis=0) / count
    variance = np.where(chosen, (values - mean) ** 2, 0.0).sum(axis=0) / (count - 1)
    return mean, np.maximum(np.sqrt(variance), _SMALLEST_SD)


def _log_density(values: Floats, mean: Floats, sd: Floats) -> Floats:
    """Of N(mean, sd²), without the constant -log √(2π), which is in both parts of a ratio."""
    density: Floats = -0.5 * ((values - mean) / sd) ** 2 - np.log(sd)
    return density


def _with(sd: Floats, noise_sd: npt.ArrayLike) -> Floats:
    combined: Floats = np.hypot(sd, np.asarray(noise_sd, dtype=np.float64))
    return combined
