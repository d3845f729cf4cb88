"""Be your own teacher, BYOT (Zhang et al. 2019): the deepest classifier teaches earlier exits.

    L = (1 − α)·Σ_{i≤C} CE(q_i, y) + α·T²·Σ_{i<C} mean KL(q_C ‖ q_i) + λ·Σ_{i<C} mean ‖f_i − f_C‖²

Exits i < C stand behind every stage of the student but the last, C is its own classifier. q are
softmaxes at T in the second sum; f_i is an exit's feature before its linear layer and f_C the
student's; ‖·‖² sums over coordinates, means are over samples. q_C and f_C are detached in the
second and third sum: the deepest exit learns from labels alone.

Needs no teacher, and costs no budget beside one: answered samples have no label, and their exits
learn from the deepest one, which a method such as KTAN teaches (`ktan+byot`).

The public code sums the third term over a batch of 128 at λ = 1e-6. A mean keeps λ independent of
the batch: ours is 128 times that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.errors import UserError
from ktan.losses import local_loss
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding, module_key
from ktan.methods.needs import Need
from ktan.methods.objective import STUDENT, Objective, Term
from ktan.methods.once import OncePerTurn
from ktan.methods.terms import local_term
from ktan.networks import NetworkStages
from ktan.networks.exits import ExitHead, ExitSpec
from ktan.taps import Tap


@dataclass(frozen=True)
class BYOT:
    """Needs no tap of any teacher, but a student of at least two stages of maps."""

    name: ClassVar[str] = "byot"
    needs: ClassVar[tuple[Need, ...]] = ()

    alpha: float = 0.1
    """α: weight of the deepest exit's opinion, 1 − α that of the labels; in [0, 1]."""
    feature_weight: float = 1.28e-4
    """λ: weight of the squared distance to the deepest feature."""
    temperature: float = 3.0
    """T of the deepest exit's opinion."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha is {self.alpha}; it must be within 0 and 1")
        if self.temperature <= 0:
            raise UserError(f"temperature is {self.temperature}; it must be above 0")

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: none."""
        return ()

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`. Raises UserError for a student of fewer than two stages."""
        heads = [ExitHead(spec) for spec in exit_specs(binding)]
        exits = OncePerTurn(partial(_run, heads))
        deepest = binding.stages.pooled

        def by_labels(view: View, batch: Batch) -> Tensor:
            return _sum(
                [
                    local_loss(logits, batch.all_labels, view.group)
                    for logits, _ in exits(view, batch)
                ]
            )

        def imitation(view: View, batch: Batch) -> Tensor:
            final = view.known_logits
            return _sum(
                [self_distillation(q, final, self.temperature) for q, _ in exits(view, batch)]
            )

        def features(view: View, batch: Batch) -> Tensor:
            final = view.known_features(deepest)
            return _sum([feature_distance(feature, final) for _, feature in exits(view, batch)])

        def measures(view: View, batch: Batch) -> dict[str, Tensor]:
            labels = batch.all_labels
            count = (labels >= 0).sum().clamp(min=1)
            return {
                f"exit_{number}_accuracy": (logits.argmax(dim=1) == labels).sum() / count
                for number, (logits, _) in enumerate(exits(view, batch), start=1)
            }

        return Objective(
            [
                local_term(1 - self.alpha),
                Term("exits", STUDENT, 1 - self.alpha, by_labels),
                Term("exits_kd", STUDENT, self.alpha, imitation),
                Term("exits_feature", STUDENT, self.feature_weight, features),
            ],
            {STUDENT: {module_key(head.spec.path): head for head in heads}},
            paths=[*(head.spec.path for head in heads), deepest],
            measures=measures,
        )


def exit_specs(binding: Binding) -> list[ExitSpec]:
    """Exits behind all stages of the student but the last. Raises UserError where there is none."""
    *inner, last = binding.stages.maps or ("",)
    if not inner:
        raise UserError(
            f"byot puts exits behind the stages of a student, and this one has "
            f"{len(binding.stages.maps)} of maps; choose another --network, such as resnet20"
        )
    shapes = binding.shapes([*inner, last, binding.stages.pooled])
    (features,) = shapes[binding.stages.pooled]
    return [
        ExitSpec(
            path,
            channels=shapes[path][0],
            features=features,
            classes=binding.classes,
            # No more than the map's shorter side, which need not be the last map's multiple.
            stride=max(1, min(shapes[path][1:]) // max(shapes[last][1:])),
        )
        for path in inner
    ]


def _run(heads: Sequence[ExitHead], view: View, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """All exits' logits and features on labelled and answered samples, in order of depth.

    Once a turn: several terms look at them, and their batch norms are to see each batch once.
    """
    with view.in_its_precision():
        found = [head(view.known_output(head.spec.path)) for head in heads]
    return [(logits.float(), feature.float()) for logits, feature in found]


def self_distillation(logits: Tensor, deepest: Tensor, temperature: float) -> Tensor:
    """T²·mean KL(q_C ‖ q_i) of softmaxes at T; `deepest` is detached. Both float [n, classes]."""
    target = F.log_softmax(deepest.detach() / temperature, dim=1)
    own = F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(own, target, log_target=True, reduction="batchmean") * temperature**2


def feature_distance(feature: Tensor, deepest: Tensor) -> Tensor:
    """mean ‖f_i − f_C‖² over samples; `deepest` is detached. Both float [n, d]."""
    return (feature - deepest.detach()).square().sum(dim=1).mean()


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()


METHOD = BYOT
