"""Soft logits (Hinton, Vinyals & Dean 2015).

    L = λ_local·CE(z_s, y) + λ_kd·T²·mean_b KL(p_t^T ‖ p_s^T)

KL is taken up to the teacher's entropy, a constant, so that the loss stays linear in a noisy
target; released logits are imitated by their centred squared error instead. T is the tap's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ktan.denoising import Denoising
from ktan.methods.method import Objective
from ktan.methods.terms import distillation_term, local_term
from ktan.teacher import AnswerTap


@dataclass(frozen=True)
class SoftLogits:
    """Needs: probabilities or logits."""

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    kd_weight: float = 3.0
    """λ_kd: weight of the distillation loss."""
    denoise: Denoising = "simplex"
    """Shrinkage of noisy probabilities before they are imitated: none or simplex."""

    def build(
        self,
        student: nn.Module,
        input_shape: tuple[int, ...],
        taps: Mapping[str, AnswerTap],
        paths: Mapping[str, str],
        answers: Mapping[str, Tensor],
    ) -> Objective:
        """See `Method.build`."""
        return Objective(
            [
                local_term(self.local_weight),
                distillation_term(self.kd_weight, taps, self.denoise),
            ]
        )
