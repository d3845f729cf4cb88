"""The choice of a shrinkage by name."""

from typing import Literal, get_args

from torch import Tensor

from ktan.denoising.known import Known
from ktan.denoising.posterior import posterior_mean
from ktan.denoising.simplex import project_to_simplex
from ktan.errors import UserError

Denoising = Literal["none", "simplex", "posterior"]


def denoise(probabilities: Tensor, how: Denoising, noise_sd: float = 0.0) -> Tensor:
    """Released probabilities [..., classes], shrunk; dtype and device stay as they are.

    `noise_sd`: published standard deviation of the noise on each probability; only `posterior`
    looks at it. Each answer is shrunk by itself, so it makes no difference when, and beside which
    others, that is done.

    - `none`: as released; unbiased.
    - `simplex`: `project_to_simplex`.
    - `posterior`: `posterior_mean`.
    """
    _check(how)
    if how == "posterior":
        return posterior_mean(probabilities, noise_sd)
    return project_to_simplex(probabilities) if how == "simplex" else probabilities


class Shrinkage:
    """`denoise` for a training, in which the same answers come again in every pass.

    On a CPU each answer's posterior mean is computed when it is first met, and looked up after. It
    is computed alone, so that its bits do not depend on the batch that brought it, and a resumed
    run equals an uninterrupted one. On a GPU a look-up would wait for the device, and the
    computation is short.
    """

    def __init__(self, how: Denoising, noise_sd: float) -> None:
        """See `denoise`. Raises UserError for a name that is none of its."""
        _check(how)
        self._how, self._noise_sd = how, noise_sd
        self._known: Known | None = None

    def __call__(self, probabilities: Tensor) -> Tensor:
        """float [n, classes], shrunk; as they are where no noise was added."""
        if not self._noise_sd:
            return probabilities
        if self._how != "posterior" or probabilities.device.type != "cpu" or not len(probabilities):
            return denoise(probabilities, self._how, self._noise_sd)
        rows = probabilities.detach()
        if self._known is None or not self._known.suits(rows[0]):
            self._known = Known(rows[0])
        return self._known.values(rows, lambda row: posterior_mean(row, self._noise_sd))


def _check(how: str) -> None:
    if how not in get_args(Denoising):
        raise UserError(f"denoise is {how!r}; it is one of {', '.join(get_args(Denoising))}")
