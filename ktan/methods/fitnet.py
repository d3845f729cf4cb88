"""FitNet (Romero et al. 2014), the one-stage form of RepDistiller and mdistiller.

    L = λ_local·CE(z_s, y) + λ_kd·KD + λ_hint·mean (r(F_s) − F_t)²

r is a linear connector, trained with the student; F_t is the released hint on unit scale
(`ktan.hints`), KD as in `ktan.methods.soft_logits`. Both losses are unbiased in the noise.

The public ones have λ_kd = 0 and β = 100 on hints as they are, which is λ_hint = 100·v for hints of
variance v. Our weights were measured with noisy answers. The paper's form, the hint alone first, is
`fitnet-two-stage`.
"""

from dataclasses import dataclass
from typing import ClassVar

from ktan.denoising import Denoising
from ktan.methods.binding import Binding
from ktan.methods.hint_pairs import HINT, HintPairs, hint_term
from ktan.methods.needs import Need, require
from ktan.methods.objective import STUDENT, Objective
from ktan.methods.teacher_taps import middle_tap, response_tap
from ktan.methods.terms import RESPONSE, distillation_term, local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class FitNet:
    """Needs: probabilities or logits, and one or more hints."""

    name: ClassVar[str] = "fitnet"
    needs: ClassVar[tuple[Need, ...]] = (RESPONSE, HINT)
    hint: ClassVar[str] = "hint"
    """The name of the hint's term."""

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    kd_weight: float = 3.0
    """λ_kd: weight of the distillation loss."""
    hint_weight: float = 0.3
    """λ_hint: weight of the squared error on standardised hints."""
    temperature: float = 4.0
    """T of a local teacher; a remote one has its own."""
    denoise: Denoising = "posterior"
    """Shrinkage of noisy probabilities before they are imitated."""

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: the map of the middle stage."""
        return (response_tap(self.temperature), middle_tap(stages))

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        pairs = HintPairs(binding)
        return Objective(
            [
                local_term(self.local_weight),
                distillation_term(self.kd_weight, binding, self.denoise),
                hint_term(self.hint_weight, pairs, self.hint),
            ],
            {STUDENT: pairs.connectors},
            paths=pairs.paths,
        )


METHOD = FitNet
