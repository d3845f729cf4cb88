"""The consistency loss on samples without labels: FixMatch (Sohn et al. 2020).

    L = mean_b 1(max q_b ≥ τ)·CE(z_strong,b, argmax q_b)

q is the prediction on a weak view, aligned to a marginal over the classes, and has no gradient.
Alignment is ReMixMatch's (Berthelot et al. 2020, section 3.1): q ∝ p·(target / running mean of p).
A class that is predicted more often than it occurs loses confidence, and pseudo-labels do not
collapse onto the few classes that were learnt first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.parallel import ONE, Group


def consistency_loss(predictions: Tensor, strong_logits: Tensor, threshold: float) -> Tensor:
    """The loss above, a scalar; 0 where no prediction reaches the threshold, or for no sample.

    `predictions`: q, float [u, classes], its gradient is not taken; `strong_logits`: float
    [u, classes], of the strong views; `threshold`: τ. The mean is over all u samples, so that the
    loss grows with the share of them that is sure.
    """
    confidence, labels = predictions.detach().max(dim=1)
    losses = F.cross_entropy(strong_logits, labels, reduction="none")
    return (losses * (confidence >= threshold)).sum() / max(len(losses), 1)


class DistributionAlignment(nn.Module):
    """Brings predictions on unlabelled samples to the classes' marginal.

    Both marginals are running means, from uniform: of the predictions seen, and of the labels seen
    (uniform as long as there is none). They are buffers, and move in training mode only.
    """

    predicted: Tensor
    """float32 [classes]: running mean of the predictions."""
    target: Tensor
    """float32 [classes]: running mean of the labels."""

    def __init__(self, classes: int, momentum: float = 0.99) -> None:
        super().__init__()
        self._momentum = momentum
        self.register_buffer("predicted", torch.full((classes,), 1 / classes))
        self.register_buffer("target", torch.full((classes,), 1 / classes))

    @torch.no_grad()
    def forward(self, weak_logits: Tensor, labels: Tensor, group: Group = ONE) -> Tensor:
        """Aligned predictions, float32 [u, classes].

        `weak_logits`: float [u, classes]; `labels`: int64 [l], of this step's labelled samples,
        -1 where there is none. `group`: the processes that have the step's other samples.
        """
        predictions = weak_logits.float().softmax(dim=1)
        if self.training:
            self._see(predictions, labels, group)
        aligned = predictions * (self.target / self.predicted.clamp(min=1e-6))
        return aligned / aligned.sum(dim=1, keepdim=True)

    def _see(self, predictions: Tensor, labels: Tensor, group: Group) -> None:
        if len(predictions):
            self.predicted.lerp_(group.mean(predictions.mean(dim=0)), 1 - self._momentum)
        # A label of -1 becomes class 0 with weight 0: nothing waits for how many there are.
        known = (labels >= 0).float()
        classes = F.one_hot(labels.clamp(min=0), len(self.target)).float()
        count = group.mean(known.sum())
        mean = group.mean((classes * known[:, None]).sum(dim=0)) / count.clamp(min=1 / group.count)
        self.target.lerp_(torch.where(count > 0, mean, self.target), 1 - self._momentum)
