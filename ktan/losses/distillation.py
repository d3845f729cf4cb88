"""Distillation losses whose expectation over the teacher's noise is the noiseless loss.

A released vector is clean + noise of mean zero. Both losses here are affine in the target up to a
constant that the student cannot change, so their gradient has the right expectation. KL with the
noisy target inside a logarithm, or a softmax over noisy logits, is not and has not.
"""

import torch.nn.functional as F
from torch import Tensor


def expected_cross_entropy(
    logits: Tensor, probabilities: Tensor, temperature: float = 1.0
) -> Tensor:
    """T²·mean_b −Σ_c q_c·log p_c at p = softmax(logits / T): linear in the released q.

    `logits`: float [n, classes] of the student; `probabilities`: float [n, classes], released at
    the same temperature; entries may be negative and need not sum to 1. For a q on the simplex
    this is T²·(KL(q ‖ p) + H(q)): Hinton et al. 2015 up to a constant. T² keeps the gradient's
    size independent of T. Unbounded below where an entry is negative (`ktan.denoising`).
    """
    log_p = F.log_softmax(logits / temperature, dim=1)
    return -(probabilities * log_p).sum(dim=1).mean() * temperature**2


def centred_logits_loss(logits: Tensor, released: Tensor) -> Tensor:
    """Mean squared difference of the logits, each centred by its own mean.

    `logits`, `released`: float [n, classes]. Noise of sd σ adds σ²·(1 − 1/classes), a constant.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    return F.mse_loss(centred, released - released.mean(dim=1, keepdim=True))
