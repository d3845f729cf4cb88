"""MEAL's adversarial game (Shen et al. 2019): a judge gives each output two scores, one a side."""

import torch
import torch.nn.functional as F
from torch import Tensor


def judge_loss(
    student: Tensor, teacher: Tensor, rest_above: float = 1.0, accuracy: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of two scores with (1, 0) for the student's outputs and (0, 1) for the
    teacher's, float [n, 2] each; without a gradient while D's accuracy is over `rest_above`.
    `accuracy`: a scalar, where these scores are a part of the batch."""
    targets = torch.cat([_target(student, 0), _target(teacher, 1)])
    loss = F.binary_cross_entropy_with_logits(torch.cat([student, teacher]), targets)
    told = judge_accuracy(student, teacher) if accuracy is None else accuracy
    return torch.where(told > rest_above, loss.detach(), loss)


def deceit_loss(student: Tensor) -> Tensor:
    """The student's loss: the same with (0, 1) for its own outputs, float [n, 2]."""
    return F.binary_cross_entropy_with_logits(student, _target(student, 1))


def judge_accuracy(student: Tensor, teacher: Tensor) -> Tensor:
    """Share of outputs that D tells right, in [0, 1]; 0.5 where it cannot tell."""
    right = (student[:, 0] >= student[:, 1]).float().mean()
    return (right + (teacher[:, 1] > teacher[:, 0]).float().mean()) / 2


def _target(scores: Tensor, whose: int) -> Tensor:
    target = torch.zeros_like(scores)
    target[:, whose] = 1
    return target
