"""Soft logits (Hinton, Vinyals & Dean 2015).

    L = λ_local·CE(z_s, y) + λ_kd·T²·mean_b KL(p_t^T ‖ p_s^T)

KL is taken up to the teacher's entropy, a constant, so that the loss stays linear in a noisy
target; released logits are imitated by their centred squared error instead. T is the tap's.
"""

from dataclasses import dataclass
from typing import ClassVar

from ktan.denoising import Denoising
from ktan.methods.binding import Binding
from ktan.methods.needs import Need, require
from ktan.methods.objective import Objective
from ktan.methods.teacher_taps import response_tap
from ktan.methods.terms import RESPONSE, distillation_term, local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class SoftLogits:
    """Needs: probabilities or logits."""

    name: ClassVar[str] = "soft-logits"
    needs: ClassVar[tuple[Need, ...]] = (RESPONSE,)

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    kd_weight: float = 3.0
    """λ_kd: weight of the distillation loss."""
    temperature: float = 4.0
    """T of a local teacher; a remote one has its own."""
    denoise: Denoising = "posterior"
    """Shrinkage of noisy probabilities before they are imitated."""

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`."""
        return (response_tap(self.temperature),)

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        return Objective(
            [
                local_term(self.local_weight),
                distillation_term(self.kd_weight, binding, self.denoise),
            ]
        )


METHOD = SoftLogits
