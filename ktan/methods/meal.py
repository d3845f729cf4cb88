"""MEAL: multi-model ensemble via adversarial learning (Shen, He & Xue 2019).

    L_s = α·Σ_i γ_i·d(o_s^i, o_t^i) + β·Σ_i −log D_i(o_s^i is a teacher's) + λ_local·CE(z_s, y)
    L_D = Σ_i BCE of D_i, which tells a student's o^i from a teacher's

over the teacher's answer (the last stage, γ = 1) and its hints before it. o^i is what a stage puts
out, pooled to at most `stage_size` values; d is one of KL, L1 and L2 between softened outputs, KL
up to the teacher's entropy, a constant. D_i is an MLP d → d/2 → d/4 → 2. No label loss by default.

D and the student move in turns and in opposite directions. The public code descends one and the
same loss with both, so that its student helps D; and its D ends in a ReLU, behind which a score
cannot fall below zero. Neither is taken over. β was measured (docs/methods/meal.md).

Several teachers are the teacher's business: `LiveTeacher` draws one a step or answers their mean,
and so does an ensemble that is served. Softening is not linear: a hint or logits with published
noise are compared by their squared error instead, which is unbiased, and probabilities as in
`ktan.methods.soft_logits`. D sees matched noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ktan.denoising import Denoising, Shrinkage
from ktan.derivation import resized
from ktan.discriminators import weights_made_once
from ktan.errors import UserError
from ktan.hints import HintScale
from ktan.losses import (
    centred_logits_loss,
    expected_cross_entropy,
    hint_loss,
    with_matched_noise,
)
from ktan.losses.stage_judges import deceit_loss, judge_accuracy, judge_loss
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding
from ktan.methods.hint_pairs import HINT, HintPair, HintPairs
from ktan.methods.needs import Need, require
from ktan.methods.objective import DISCRIMINATOR, STUDENT, Objective, Term
from ktan.methods.once import OncePerTurn
from ktan.methods.teacher_taps import map_taps
from ktan.methods.terms import RESPONSE, local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap

Distance = Literal["kl", "l1", "l2"]
_NARROW = 128
"""Values of a stage below which its judge gains nothing by multiplying in bf16."""


@dataclass(frozen=True)
class MEAL:
    """Needs: probabilities or logits; takes every hint that it is given too."""

    name: ClassVar[str] = "meal"

    local_weight: float = 0.0
    """λ_local: weight of the cross-entropy with public labels."""
    similarity_weight: float = 1.0
    """α: weight of the similarity of all stages."""
    adversarial_weight: float = 0.1
    """β: weight of the student's side of the adversarial game."""
    distance: Distance = "kl"
    """d between softened outputs: kl, l1 or l2 (means over all values)."""
    stage_weight: float = 0.1
    """γ of a stage relative to that of the stage after it; 0 for the teacher's answer alone."""
    stage_size: int = 1024
    """A map is pooled until it has no more values than this (or one of each channel)."""
    discriminator_rest: float = 0.7
    """A discriminator rests while it tells this share of a batch's outputs right; 1 for never."""
    temperature: float = 4.0
    """T at which a teacher's noise-free logits are softened; probabilities have their own."""
    denoise: Denoising = "posterior"
    """Shrinkage of noisy probabilities before they are imitated."""

    def __post_init__(self) -> None:
        if self.distance not in get_args(Distance):
            raise UserError(
                f"distance is {self.distance!r}; it is one of {', '.join(get_args(Distance))}"
            )
        if self.stage_size < 1 or self.temperature <= 0:
            raise UserError("stage_size must be at least 1, and temperature above 0")

    @property
    def needs(self) -> tuple[Need, ...]:
        """See `Method.needs`: hints where the stages before the last count."""
        return (RESPONSE, replace(HINT, optional=True)) if self.stage_weight else (RESPONSE,)

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: logits, and the last map of every stage where γ is not 0."""
        return (Tap("logits", "logits"), *(map_taps(stages) if self.stage_weight else ()))

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        answer = _answer_stage(self, binding)
        pairs = HintPairs(binding) if self.stage_weight else None
        sizes = (
            []
            if pairs is None
            else [pooled_shape(s, self.stage_size) for s in pairs.shapes.values()]
        )
        judges = nn.ModuleList(stage_judge(_count(size)) for size in sizes)
        judges.append(stage_judge(binding.classes))
        count = len(judges)

        def outputs(view: View, batch: Batch) -> list[StageOutputs]:
            found = [] if pairs is None else pairs(view, batch)
            hints = [self._hint(pair, size) for pair, size in zip(found, sizes, strict=True)]
            return [*hints, answer(view, batch)]

        stages = OncePerTurn(outputs)

        def similarity(view: View, batch: Batch) -> Tensor:
            weights = [self.stage_weight ** (count - 1 - i) for i in range(count)]
            distances = [stage.distance() for stage in stages(view, batch)]
            return torch.stack([w * d for w, d in zip(weights, distances, strict=True)]).sum()

        def adversarial(view: View, batch: Batch) -> Tensor:
            judged = zip(judges, stages(view, batch), strict=True)
            return torch.stack(
                [deceit_loss(_scores(judge, stage.student, view)) for judge, stage in judged]
            ).sum()

        def games(view: View, batch: Batch) -> list[tuple[Tensor, Tensor]]:
            with torch.no_grad():
                both = [torch.cat([stage.student, stage.teacher]) for stage in stages(view, batch)]
            scores = [_scores(judge, one, view) for judge, one in zip(judges, both, strict=True)]
            return [(own, theirs) for own, theirs in (score.chunk(2) for score in scores)]

        def discrimination(view: View, batch: Batch) -> Tensor:
            losses = []
            for game in games(view, batch):
                told = view.group.mean(judge_accuracy(*game))
                losses.append(judge_loss(*game, self.discriminator_rest, told))
            return torch.stack(losses).sum()

        def measures(view: View, batch: Batch) -> dict[str, Tensor]:
            told = [judge_accuracy(*game) for game in games(view, batch)]
            return {"stage_discriminator_accuracy": torch.stack(told).mean()}

        terms = [
            Term("similarity", STUDENT, self.similarity_weight, similarity),
            Term("stage_adversarial", STUDENT, self.adversarial_weight, adversarial),
            Term("stage_discriminator", DISCRIMINATOR, 1.0, discrimination),
        ]
        if self.local_weight:
            terms.insert(0, local_term(self.local_weight))
        connectors = {} if pairs is None else pairs.connectors
        return Objective(
            terms,
            {DISCRIMINATOR: {"judges": judges}, STUDENT: connectors},
            paths=() if pairs is None else pairs.paths,
            measures=measures,
        )

    def _hint(self, pair: HintPair, size: tuple[int, ...]) -> "StageOutputs":
        own, theirs = pooled(pair.student, size), pooled(pair.teacher, size)

        def distance() -> Tensor:
            if pair.noise_sd:
                return hint_loss(own, theirs)
            return softened_distance(self.distance, own, torch.softmax(theirs, dim=1))

        noisy = pooled(with_matched_noise(pair.student, pair.noise_sd), size)
        return StageOutputs(distance, noisy, theirs)


class StageOutputs(NamedTuple):
    """One stage of one batch."""

    distance: Callable[[], Tensor]
    """d(o_s, o_t), a scalar; D's turn needs none."""
    student: Tensor
    """What D sees of the student, with matched noise: float32 [a, d]."""
    teacher: Tensor
    """What D sees of the teacher, as released, on the same scale."""


def _answer_stage(method: MEAL, binding: Binding) -> Callable[[View, Batch], StageOutputs]:
    """The last stage: the teacher's probabilities or logits."""
    (tap,) = binding.taps_for(RESPONSE)
    of_logits = tap.kind == "logits"
    temperature = method.temperature if of_logits else tap.temperature
    shrink = Shrinkage(method.denoise, tap.noise_sd)
    scale = HintScale.of(tap, binding.answers[tap.name], seen=lambda read: _seen(read, of_logits))

    def outputs(view: View, batch: Batch) -> StageOutputs:
        logits, released = view.answered_logits, batch.answers[tap.name]

        def distance() -> Tensor:
            if of_logits and tap.noise_sd:
                return centred_logits_loss(logits, released)
            target = torch.softmax(released / temperature, dim=1) if of_logits else shrink(released)
            return softened_distance(method.distance, logits, target, temperature)

        own = logits if of_logits else torch.softmax(logits / temperature, dim=1)
        noisy = with_matched_noise(own, tap.noise_sd)
        return StageOutputs(
            distance,
            scale.standardise(_seen(noisy, of_logits)),
            scale.standardise(_seen(released, of_logits)),
        )

    return outputs


def _seen(answers: Tensor, of_logits: bool) -> Tensor:
    """What D sees: a common shift of all logits says nothing."""
    return answers - answers.mean(dim=1, keepdim=True) if of_logits else answers


def softened_distance(
    distance: Distance, outputs: Tensor, target: Tensor, temperature: float = 1.0
) -> Tensor:
    """d(softmax(outputs / T), target): float [n, d] each → scalar.

    `kl`: T²·mean_b KL plus T² times the target's entropy; `l1`, `l2`: mean absolute or squared
    difference over all values.
    """
    if distance == "kl":
        return expected_cross_entropy(outputs, target, temperature)
    loss = F.l1_loss if distance == "l1" else F.mse_loss
    return loss(torch.softmax(outputs / temperature, dim=1), target)


def pooled_shape(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """[c, h, w] brought to at most `size` values by pooling, one position at least; [m] stays."""
    if len(shape) == 1:
        return shape
    side = max(1, isqrt(size // shape[0]))
    return (shape[0], min(side, shape[1]), min(side, shape[2]))


def pooled(feature: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[n, c, h, w] → [n, c·h'·w'] at `shape` (c, h', w'); a vector stays."""
    if feature.ndim == 2:
        return feature
    return resized(feature, (shape[1], shape[2])).flatten(1)


def stage_judge(size: int) -> nn.Module:
    """D of one stage: [n, d] → [n, 2] scores, for the student's and for the teacher's.

    The 1×1 convolutions d → d/2 → d/4 → 2 of the public code, on vectors; with no fewer than 16
    hidden units, and leaky: the 5 and 3 units that ten logits would get die easily. Spectral
    normalisation (Miyato et al. 2018) bounds the gradient that the student gets from a D that wins.
    """
    half, quarter = max(16, size // 2), max(16, size // 4)
    return nn.Sequential(
        spectral_norm(nn.Linear(size, half)), nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(half, quarter)), nn.LeakyReLU(0.2),
        spectral_norm(nn.Linear(quarter, 2)),
    )  # fmt: skip


def _scores(judge: nn.Module, outputs: Tensor, view: View) -> Tensor:
    """float32 [n, 2]; layers wide enough to count multiply as the student does."""
    with weights_made_once(judge):
        if outputs.shape[1] < _NARROW:
            found: Tensor = judge(outputs)
            return found
        with view.in_its_precision():
            found = judge(outputs)
    return found.float()


def _count(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


METHOD = MEAL
