"""The choice of a shrinkage by name."""

from typing import Literal, get_args

from torch import Tensor

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
    if how not in get_args(Denoising):
        raise UserError(f"denoise is {how!r}; it is one of {', '.join(get_args(Denoising))}")
    if how == "posterior":
        return posterior_mean(probabilities, noise_sd)
    return project_to_simplex(probabilities) if how == "simplex" else probabilities
