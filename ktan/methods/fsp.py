"""Flow of solution procedure, FSP (Yim et al. 2017).

    G(F₁, F₂) = F₁ᵀF₂ / (h·w) of consecutive maps, the larger one pooled to the smaller one's size
    first:  L = λ_flow·Σ_i mean (G_s^i − G_t^i)²
    then:   L = λ_local·CE(z_s, y)

The squared error is unbiased under noise on G_t. Where the student's products have another shape
than the teacher's (other widths, or products that the teacher reduced to m dimensions), they go
through a linear connector, and G_t is brought to unit scale (`ktan.hints`): a connector starts on
unit scale, and the teacher's products, which go with the square of its activations, are anywhere.
Products of one shape are compared as they are. `fsp+soft-logits` adds KD to the second stage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.connectors import FlowConnector
from ktan.hints import HintScale
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding
from ktan.methods.derived_pairs import PRODUCTS, DerivedPair, product_pairs
from ktan.methods.initial_stage import initial_stage
from ktan.methods.needs import Need, require
from ktan.methods.objective import STUDENT, Objective, Term
from ktan.methods.teacher_taps import local_tap
from ktan.methods.terms import local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap
from ktan.teacher import AnswerTap

_Sides = Callable[[View, Mapping[str, Tensor]], tuple[Tensor, Tensor]]
"""View and answers → the student's and the teacher's products, of one shape."""


@dataclass(frozen=True)
class FlowOfProcedure:
    """Needs: products, or at least two whole maps without noise."""

    name: ClassVar[str] = "fsp"
    needs: ClassVar[tuple[Need, ...]] = (PRODUCTS,)

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    flow_weight: float = 1.0
    """λ_flow: weight of the squared error on products, which stands alone in its stage."""
    initialisation: float = 0.3
    """Share of the steps in which the products alone are learnt (40 of 140 epochs in
    KD_methods_with_TF)."""

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: the products of each two stages that follow one another."""
        return tuple(local_tap("products", *two) for two in pairwise(stages.maps))

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        pairs = product_pairs(binding)
        connectors: dict[str, nn.Module] = {}
        sides = [_sides(pair, binding, connectors) for pair in pairs]

        def flow(view: View, batch: Batch) -> Tensor:
            return torch.stack([F.mse_loss(*side(view, batch.answers)) for side in sides]).sum()

        return Objective(
            [local_term(self.local_weight), Term("flow", STUDENT, self.flow_weight, flow)],
            {STUDENT: connectors},
            paths=[path for pair in pairs for path in pair.paths],
            stages=initial_stage("flow", self.initialisation, self.name),
        )


def _sides(pair: DerivedPair, binding: Binding, connectors: dict[str, nn.Module]) -> _Sides:
    """How to have both sides of a pair; adds its connector, where it needs one."""
    shapes = binding.map_shapes(pair.paths)
    own = tuple(shapes[path][0] for path in pair.paths)
    at_hand = [binding.answers[name] for name in pair.answered]
    one = {name: binding.answers[name][:1] for name in pair.answered}
    theirs = tuple(pair.teacher(one).shape[1:])
    if own == theirs:
        return lambda view, answers: (pair.student(view), pair.teacher(answers))
    connect = connectors[pair.key] = FlowConnector(own, theirs)

    def products(*read: Tensor) -> Tensor:
        return pair.teacher(dict(zip(pair.answered, read, strict=True))).flatten(1)

    tap = AnswerTap(pair.key, "products", theirs, pair.noise_sd)
    scale = HintScale.of(tap, *at_hand, seen=products)

    def connected(view: View, answers: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        answered = scale.standardise(pair.teacher(answers).flatten(1))
        return connect(pair.student(view)).flatten(1), answered

    return connected


METHOD = FlowOfProcedure
