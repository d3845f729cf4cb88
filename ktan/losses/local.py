"""The local loss: what a student learns without any teacher."""

import torch.nn.functional as F
from torch import Tensor

UNLABELLED = -1


def local_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the samples that have a label; 0 where none has.

    `logits`: float [n, classes]; `labels`: int64 [n], -1 for an unlabelled sample.
    """
    total = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)
