"""Attention transfer, AT (Zagoruyko & Komodakis 2017).

    q(F) = mean_c F² / ‖mean_c F²‖₂
    L = λ_local·CE(z_s, y) + λ_kd·KD + Σ_i (β/2)·mean (q(F_s^i) − q(F_t^i))²

over all stages i; β = 1000. The student's map is brought to the teacher's size before it is
normalised. The squared error is unbiased under noise on q(F_t). KD (as in
`ktan.methods.soft_logits`) is off by default, as in the paper's comparison.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.denoising import Denoising
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding
from ktan.methods.derived_pairs import ATTENTION, attention_pairs
from ktan.methods.needs import Need, require
from ktan.methods.objective import STUDENT, Objective, Term
from ktan.methods.teacher_taps import local_tap, response_tap
from ktan.methods.terms import RESPONSE, distillation_term, local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class AttentionTransfer:
    """Needs: attention taps, or whole maps without noise; probabilities or logits where kd_weight
    is not 0."""

    name: ClassVar[str] = "at"

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    kd_weight: float = 0.0
    """λ_kd: weight of the distillation loss."""
    attention_weight: float = 1000.0
    """β."""
    temperature: float = 4.0
    """T of a local teacher; a remote one has its own."""
    denoise: Denoising = "posterior"
    """Shrinkage of noisy probabilities before they are imitated."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """See `Method.needs`."""
        return (ATTENTION, RESPONSE) if self.kd_weight else (ATTENTION,)

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`."""
        attention = tuple(local_tap("attention", path) for path in stages.maps)
        return (*attention, response_tap(self.temperature)) if self.kd_weight else attention

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        pairs = attention_pairs(binding)
        paths = [path for pair in pairs for path in pair.paths]
        binding.map_shapes(paths)

        def attention(view: View, batch: Batch) -> Tensor:
            return torch.stack(
                [F.mse_loss(pair.student(view), pair.teacher(batch.answers)) for pair in pairs]
            ).sum()

        terms = [
            local_term(self.local_weight),
            Term("attention", STUDENT, self.attention_weight / 2, attention),
        ]
        if self.kd_weight:
            terms.append(distillation_term(self.kd_weight, binding, self.denoise))
        return Objective(terms, paths=paths)


METHOD = AttentionTransfer
