"""FitNet (Romero et al. 2014), the one-stage form of RepDistiller and mdistiller.

    L = λ_local·CE(z_s, y) + λ_kd·KD + λ_hint·mean (r(F_s) − F_t)²

r is a linear connector, trained with the student; F_t is the released hint on unit scale
(`ktan.hints`), KD as in `ktan.methods.soft_logits`. Both losses are unbiased in the noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ktan.denoising import Denoising
from ktan.losses import hint_loss
from ktan.methods.hint_pairs import HintPairs
from ktan.methods.method import STUDENT, Batch, Objective, Term, View
from ktan.methods.terms import distillation_term, local_term
from ktan.teacher import AnswerTap


@dataclass(frozen=True)
class FitNet:
    """Needs: probabilities or logits, and one or more hints."""

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    kd_weight: float = 3.0
    """λ_kd: weight of the distillation loss."""
    hint_weight: float = 0.3
    """λ_hint: weight of the squared error on standardised hints."""
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
        pairs = HintPairs(student, input_shape, taps, paths, answers)

        def hint(view: View, batch: Batch) -> Tensor:
            return torch.stack(
                [hint_loss(pair.student, pair.teacher) for pair in pairs(view, batch)]
            ).mean()

        return Objective(
            [
                local_term(self.local_weight),
                distillation_term(self.kd_weight, taps, self.denoise),
                Term("hint", STUDENT, self.hint_weight, hint),
            ],
            {STUDENT: pairs.connectors},
            paths=pairs.paths,
        )
