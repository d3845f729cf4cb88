"""Activation boundary, AB (Heo et al. 2019).

    first:  L = Σ_i λ·2^(i − n + 1)·boundary(r_i(s_i), t_i),   i = 0 … n − 1
    then:   L = λ_local·CE(z_s, y)

s_i is the student's map of stage i *before* its activation, t_i the signs of the teacher's, λ =
3e-3, and boundary as in `ktan.losses.activation_boundary`, linear in t and so unbiased in its
noise. r_i is a 1×1 convolution with batch norm, trained with the student and dropped at export; it
is there for equal shapes too, as in the paper. `ab+soft-logits` adds KD to the second stage.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ktan.connectors import NormedConnector
from ktan.losses import boundary_loss
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding, module_key
from ktan.methods.initial_stage import initial_stage
from ktan.methods.needs import Need, require
from ktan.methods.objective import STUDENT, Objective, Term
from ktan.methods.teacher_taps import local_tap
from ktan.methods.terms import local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap

SIGNS = Need("signs")


@dataclass(frozen=True)
class ActivationBoundary:
    """Needs: signs."""

    name: ClassVar[str] = "ab"
    needs: ClassVar[tuple[Need, ...]] = (SIGNS,)

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    boundary_weight: float = 3e-3
    """λ: weight of the last stage's boundary, a sum over units; each stage before has half."""
    margin: float = 1.0
    """Distance from zero beyond which a value on the right side costs nothing."""
    initialisation: float = 0.3
    """Share of the steps in which the boundary alone is learnt (40 of 140 epochs in
    KD_methods_with_TF)."""
    clamp: bool = False
    """Noisy signs are brought to [−1, 1] first: biased, but the loss has a lower bound."""

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: the signs of all stages."""
        return tuple(local_tap("signs", path) for path in stages.before_activation)

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        taps = binding.taps_for(SIGNS)
        path_of = {tap.name: binding.paths[tap.name][0] for tap in taps}
        shapes = binding.map_shapes(path_of.values())
        connectors = {
            module_key(tap.name): NormedConnector(shapes[path_of[tap.name]], tap.shape)
            for tap in taps
        }
        weights = [2.0 ** (place - len(taps) + 1) for place in range(len(taps))]

        def boundary(view: View, batch: Batch) -> Tensor:
            parts = []
            for tap, weight in zip(taps, weights, strict=True):
                connect = connectors[module_key(tap.name)]
                with view.in_its_precision():
                    student = connect(view.answered_output(path_of[tap.name])).float()
                signs = batch.answers[tap.name]
                if self.clamp:
                    signs = signs.clamp(-1, 1)
                parts.append(weight * boundary_loss(student, signs, self.margin))
            return torch.stack(parts).sum()

        return Objective(
            [
                local_term(self.local_weight),
                Term("boundary", STUDENT, self.boundary_weight, boundary),
            ],
            {STUDENT: connectors},
            paths=path_of.values(),
            stages=initial_stage("boundary", self.initialisation, self.name),
        )


METHOD = ActivationBoundary
