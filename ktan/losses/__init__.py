"""Loss terms, one idea a file; `ktan.methods` weighs them into methods."""

from ktan.losses.activation_boundary import boundary_loss
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
from ktan.losses.singular_vectors import singular_vector_loss

__all__ = [
    "DistributionAlignment",
    "boundary_loss",
    "centred_logits_loss",
    "consistency_loss",
    "discrimination_loss",
    "discriminator_accuracy",
    "expected_cross_entropy",
    "generation_loss",
    "hint_loss",
    "local_loss",
    "singular_vector_loss",
    "with_matched_noise",
]
