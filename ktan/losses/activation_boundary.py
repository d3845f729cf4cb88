"""The activation boundary (Heo et al. 2019, eq. 5): which side of zero, with a margin.

    Σ [ (s + m)²·1(s > −m, t ≤ 0) + (s − m)²·1(s ≤ m, t > 0) ] / B

s is the student's value before its activation. A teacher of this project answers signs: t = ±1 of
one network, the mean of several's, with noise on it. With w = (1 + t) / 2 as the weight of the
side above zero the loss is the paper's at t = ±1 and linear in t, hence unbiased in its noise.
"""

import torch.nn.functional as F
from torch import Tensor


def boundary_loss(student: Tensor, signs: Tensor, margin: float = 1.0) -> Tensor:
    """The loss above: a sum over values, a mean over the batch.

    `student`: float [n, ...], before the activation; `signs`: float [n, ...], released. Unbounded
    below where a sign lies outside [−1, 1], as noise may bring it.
    """
    above = (1 + signs) / 2
    # (s − m)²·1(s ≤ m) is relu(m − s)²; so is the other side.
    up, down = F.relu(margin - student).square(), F.relu(margin + student).square()
    return (above * up + (1 - above) * down).sum() / max(len(student), 1)
