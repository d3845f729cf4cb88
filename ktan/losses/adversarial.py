"""The adversarial game over hints (Goodfellow et al. 2014, non-saturating form; KTAN).

D sees a hint and says whose it is: a teacher's (real, score > 0) or a student's (fake). D and the
student move in turns, each by its own optimiser, towards opposite ends.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def discrimination_loss(
    real: Tensor, fake: Tensor, rest_above: float = 1.0, accuracy: Tensor | None = None
) -> Tensor:
    """−log D(real) − log(1 − D(fake)), mean over the batch; D's own loss.

    `real`, `fake`: scores before the sigmoid, float [n] or [n, ...] for a D that judges patches.
    D rests (its gradient is zero, the loss's value is not) while its accuracy on the batch is over
    `rest_above`: a D that wins outright on the few answers there are teaches the student nothing.
    `accuracy`: a scalar, where these scores are a part of the batch.
    """
    loss = F.softplus(-real).mean() + F.softplus(fake).mean()
    told = discriminator_accuracy(real, fake) if accuracy is None else accuracy
    return torch.where(told > rest_above, loss.detach(), loss)


def generation_loss(fake: Tensor) -> Tensor:
    """−log D(fake), mean over the batch; the student's loss. Its gradient is large where D wins."""
    return F.softplus(-fake).mean()


def discriminator_accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """Share of scores with the right sign, in [0, 1]; 0.5 where D cannot tell."""
    return ((real > 0).float().mean() + (fake <= 0).float().mean()) / 2


def with_matched_noise(features: Tensor, noise_sd: float) -> Tensor:
    """`features` plus fresh Gaussian noise of the teacher's published sd.

    Without it D would win by seeing the noise on the teacher's answers, which no student can
    imitate. This noise protects nothing, and is drawn from torch's seeded generator.
    """
    return features + noise_sd * torch.randn_like(features) if noise_sd else features
