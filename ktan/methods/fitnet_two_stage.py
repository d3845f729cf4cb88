"""FitNet as its paper has it (Romero et al. 2014): the hint alone, then soft logits.

    first:  L = λ_hint·mean (r(F_s) − F_t)²
    then:   L = λ_local·CE(z_s, y) + λ_kd·KD

In the first stage the student learns up to the guided layer, and the linear connector r with it;
what lies behind waits for the second. The terms are those of `ktan.methods.fitnet`, both unbiased
in the noise.
"""

from dataclasses import dataclass
from typing import ClassVar

from ktan.methods.binding import Binding
from ktan.methods.fitnet import FitNet
from ktan.methods.initial_stage import initial_stage
from ktan.methods.objective import Objective


@dataclass(frozen=True)
class TwoStageFitNet(FitNet):
    """Needs what FitNet needs, and has its options and one more."""

    name: ClassVar[str] = "fitnet-two-stage"
    hint: ClassVar[str] = "initial hint"
    """Not `hint`, which is the term of methods in combination that have one throughout."""

    hint_weight: float = 1.0
    """λ_hint: weight of the squared error on standardised hints, which stands alone."""
    initialisation: float = 0.3
    """Share of the steps in which the hint alone is learnt (40 of 140 epochs in
    KD_methods_with_TF)."""

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        objective = super().build(binding)
        objective.stages = initial_stage(self.hint, self.initialisation, self.name)
        return objective


METHOD = TwoStageFitNet
