"""The hint loss (Romero et al. 2014): a student's feature imitates a teacher's."""

import torch.nn.functional as F
from torch import Tensor


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean (r(F_s) − F_t)² over batch and coordinates; both [n, ...] of one shape.

    The mean over coordinates (RepDistiller, mdistiller) keeps its weight independent of the
    hint's size. Noise of sd σ on F_t adds σ², a constant.
    """
    return F.mse_loss(student, teacher)
