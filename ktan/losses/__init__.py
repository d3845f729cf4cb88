"""Loss terms, one idea a file; `ktan.methods` weighs them into methods."""

from ktan.losses.adversarial import (
    discrimination_loss,
    discriminator_accuracy,
    generation_loss,
    with_matched_noise,
)
from ktan.losses.consistency import DistributionAlignment, consistency_loss
from ktan.losses.distillation import centred_logits_loss, expected_cross_entropy
from ktan.losses.hint import hint_loss
from ktan.losses.local import local_loss

__all__ = [
    "DistributionAlignment",
    "centred_logits_loss",
    "consistency_loss",
    "discrimination_loss",
    "discriminator_accuracy",
    "expected_cross_entropy",
    "generation_loss",
    "hint_loss",
    "local_loss",
    "with_matched_noise",
]
