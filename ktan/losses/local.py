"""The local loss: what a student learns without any teacher."""

import torch.nn.functional as F
from torch import Tensor

from ktan.parallel import ONE, Group

UNLABELLED = -1


def local_loss(logits: Tensor, labels: Tensor, group: Group = ONE) -> Tensor:
    """Mean cross-entropy over the samples that have a label; 0 where none has.

    `logits`: float [n, classes]; `labels`: int64 [n], -1 for an unlabelled sample. `group`: the
    processes that have the step's other samples; the mean of what they give is the whole step's.
    """
    total = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    labelled = group.mean((labels != UNLABELLED).sum().float())
    return total / labelled.clamp(min=1 / group.count)
