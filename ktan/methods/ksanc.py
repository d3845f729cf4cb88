"""KSANC: knowledge squeezed adversarial network compression (Shu et al. 2019; AAAI 2020).

    L_s = λ₁·‖z_s − z_t‖² + λ₂·L_adv + λ₃·Σ_i ‖g̃_s^i − g̃_t^i‖² + λ_local·CE(z_s, y)
    L_adv = −log D(z_s) + CE(D_C(z_s), y)
    L_D = −log D(z_t) − log(1 − D(z_s)) + CE(D_C(z_t), y) + CE(D_C(z_s), y) − μ·log D(z_s)
    g̃ = Σ_positions M ⊙ L,  M = softmax over positions of a(ReLU(L + b(g)))

Norms are means over coordinates, logits are centred. D(z) is the chance that logits are the
teacher's, D_C its classification of them; y is the sample's public label, or the teacher's arg max
where it has none. The last summand is the regulariser that keeps D from winning: it tells D that
the student's logits might be the teacher's (adversarial samples; Belagiannis et al. 2018), so that
D never goes below μ / (1 + μ). Both kinds of logits go through D in one batch, whose statistics
its batch norms take: judged apart, they would tell them from each other.

L is a stage's map, the student's brought to the teacher's width; g, 128 values, is squeezed from
the last map; a and b are 1×1 convolutions. Without the ReLU between them, b(g) would add one number
to all positions, and the softmax take it away again. The teacher's attention is trained by the task
alone, through a linear classifier on each g̃_t, as a player of its own: trained by the imitation, it
would look where teacher and student agree, at nothing. The student's is trained with the student.

The paper's weights are not public; ours were measured (docs/methods/ksanc.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.connectors import Connector
from ktan.errors import UserError
from ktan.hints import HintScale
from ktan.losses import (
    centred_logits_loss,
    discrimination_loss,
    discriminator_accuracy,
    generation_loss,
    with_matched_noise,
)
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding
from ktan.methods.needs import Need, require
from ktan.methods.objective import DISCRIMINATOR, STUDENT, Objective, Term
from ktan.methods.teacher_taps import map_taps
from ktan.methods.terms import local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap

ATTENTION = "attention"
LOGITS = Need("logits")
MAPS = Need("maps")


@dataclass(frozen=True)
class KSANC:
    """Needs: logits; the attention term also whole maps without noise, and rests without them."""

    name: ClassVar[str] = "ksanc"
    needs: ClassVar[tuple[Need, ...]] = (LOGITS, replace(MAPS, optional=True))

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels; 0 in the paper."""
    logits_weight: float = 1.0
    """λ₁: weight of the mean squared error of centred logits."""
    adversarial_weight: float = 1.0
    """λ₂: weight of the student's side of the adversarial game."""
    attention_weight: float = 0.1
    """λ₃: weight of the squeezed descriptors' mean squared error, summed over stages."""
    descriptor: int = 128
    """Values of g."""
    discriminator_width: int = 64
    """Hidden units of the discriminator."""
    regularisation: float = 0.25
    """μ: how much the discriminator is told that a student's logits are a teacher's."""

    def __post_init__(self) -> None:
        if self.regularisation < 0 or min(self.descriptor, self.discriminator_width) < 1:
            raise UserError(
                "regularisation must be at least 0, descriptor and discriminator_width at least 1"
            )

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: logits, and the last map of every stage."""
        return (Tap("logits", "logits"), *(map_taps(stages) if self.attention_weight else ()))

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        game = LogitsGame(binding, self.discriminator_width, self.regularisation)
        answered = game.name
        terms = [
            Term(
                "logits", STUDENT, self.logits_weight,
                lambda v, b: centred_logits_loss(v.answered_logits, b.answers[answered]),
            ),
            Term("logits_adversarial", STUDENT, self.adversarial_weight, game.deceit),
            Term("logits_discriminator", DISCRIMINATOR, 1.0, game.discrimination),
        ]  # fmt: skip
        if self.local_weight:
            terms.insert(0, local_term(self.local_weight))
        modules: dict[str, dict[str, nn.Module]] = {DISCRIMINATOR: {"judge": game.judge}}
        if not self.attention_weight or not binding.taps_for(MAPS):
            return Objective(terms, modules, measures=game.measures)
        squeezed = SqueezedPairs(binding, self.descriptor)

        def task(view: View, batch: Batch) -> Tensor:
            return squeezed.task(view, batch, batch.answered_classes(batch.answers[answered]))

        terms += [
            Term("squeezed", STUDENT, self.attention_weight, squeezed.imitation),
            Term("attention_task", ATTENTION, 1.0, task),
        ]
        owned = {ATTENTION: squeezed.of_teacher, **modules, STUDENT: squeezed.of_student}
        return Objective(terms, owned, paths=squeezed.paths, measures=game.measures)


class LogitsGame:
    """D on logits, its loss and the student's."""

    def __init__(self, binding: Binding, width: int, regularisation: float) -> None:
        (tap,) = binding.taps_for(LOGITS)
        self.name = tap.name
        self._noise_sd = tap.noise_sd
        self._regularisation = regularisation
        self.judge = LogitsJudge(binding.classes, width)

    def deceit(self, view: View, batch: Batch) -> Tensor:
        """The student's loss."""
        _, (fake, classes) = self._judged(view.answered_logits, batch)
        labels = batch.answered_classes(batch.answers[self.name])
        return generation_loss(fake) + F.cross_entropy(classes, labels)

    def discrimination(self, view: View, batch: Batch) -> Tensor:
        """D's own loss."""
        (real, of_teacher), (fake, of_student) = self._judged(view.answered_logits.detach(), batch)
        labels = batch.answered_classes(batch.answers[self.name])
        told = discrimination_loss(real, fake)
        classified = F.cross_entropy(of_teacher, labels) + F.cross_entropy(of_student, labels)
        return told + classified + self._regularisation * generation_loss(fake)

    def measures(self, view: View, batch: Batch) -> dict[str, Tensor]:
        """How often D is right about whose logits it sees; 0.5 where it cannot tell."""
        (real, _), (fake, _) = self._judged(view.answered_logits, batch)
        return {"logits_discriminator_accuracy": discriminator_accuracy(real, fake)}

    def _judged(
        self, own: Tensor, batch: Batch
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Scores [a] and classes [a, C] of the teacher's logits, and of the student's [a, C]."""
        both = torch.cat([batch.answers[self.name], with_matched_noise(own, self._noise_sd)])
        scores, classes = self.judge(both - both.mean(dim=1, keepdim=True))
        of_teacher, of_student = zip(scores.chunk(2), classes.chunk(2), strict=True)
        return of_teacher, of_student


class LogitsJudge(nn.Module):
    """BN-FC-BN-ReLU-FC-BN-ReLU-FC: logits [n, C] → scores [n], class logits [n, C].

    Batch norms take the statistics of the batch at hand, always.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _batch_norm(classes),
            nn.Linear(classes, width), _batch_norm(width), nn.ReLU(),
            nn.Linear(width, width), _batch_norm(width), nn.ReLU(),
            nn.Linear(width, 1 + classes),
        )  # fmt: skip

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        found: Tensor = self.layers(logits)
        return found[:, 0], found[:, 1:]


class TaskAttention(nn.Module):
    """Squeezes a stage's map [n, c, h, w] to g̃ [n, c], a mean over positions weighted by M."""

    def __init__(self, channels: int, descriptor: int) -> None:
        super().__init__()
        self.lift = nn.Linear(descriptor, channels)
        self.score = nn.Conv2d(channels, 1, 1)

    def attention(self, stage: Tensor, descriptor: Tensor) -> Tensor:
        """M: [n, h·w], at least 0, of sum 1."""
        met: Tensor = self.score(F.relu(stage + self.lift(descriptor)[:, :, None, None]))
        return met.flatten(1).softmax(dim=1)

    def forward(self, stage: Tensor, descriptor: Tensor) -> Tensor:
        return (stage.flatten(2) @ self.attention(stage, descriptor)[:, :, None]).squeeze(2)


class Squeeze(nn.Module):
    """The maps of all stages [n, c_i, h_i, w_i] → g̃ of each, [n, c_i]."""

    def __init__(self, channels: Sequence[int], descriptor: int) -> None:
        super().__init__()
        self.descriptor = nn.Linear(channels[-1], descriptor)
        self.attentions = nn.ModuleList(TaskAttention(c, descriptor) for c in channels)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        # The mean over positions of a 1×1 convolution is that of the mean.
        descriptor = self.descriptor(stages[-1].mean(dim=(2, 3)))
        return [
            attend(stage, descriptor) for attend, stage in zip(self.attentions, stages, strict=True)
        ]


class SqueezedPairs:
    """The squeezed descriptors of both sides, from whole maps on unit scale."""

    def __init__(self, binding: Binding, descriptor: int) -> None:
        self._taps = binding.taps_for(MAPS)
        self.paths = tuple(binding.paths[tap.name][0] for tap in self._taps)
        shapes = binding.shapes(self.paths)
        self._scales = [HintScale.of(tap, binding.answers[tap.name]) for tap in self._taps]
        self._made: tuple[Batch, torch.dtype | None, list[Tensor]] | None = None
        channels = [tap.shape[0] for tap in self._taps]
        connectors = [
            Connector(shapes[path], tap.shape)
            for path, tap in zip(self.paths, self._taps, strict=True)
        ]
        self._connectors = nn.ModuleList(connectors)
        self._own, self._theirs = (Squeeze(channels, descriptor) for _ in range(2))
        self._classifiers = nn.ModuleList(nn.Linear(c, binding.classes) for c in channels)
        self.of_teacher: dict[str, nn.Module] = {
            "squeeze": self._theirs,
            "classifiers": self._classifiers,
        }
        self.of_student: dict[str, nn.Module] = {
            "squeeze": self._own,
            "connectors": self._connectors,
        }

    def task(self, view: View, batch: Batch, labels: Tensor) -> Tensor:
        """The loss of the teacher's attention: mean cross-entropy of all stages' classifiers."""
        squeezed = self._of_teacher(view, batch)
        return torch.stack(
            [
                F.cross_entropy(classify(value), labels)
                for classify, value in zip(self._classifiers, squeezed, strict=True)
            ]
        ).mean()

    def imitation(self, view: View, batch: Batch) -> Tensor:
        """Σ_i mean (g̃_s^i − g̃_t^i)²."""
        with torch.no_grad():
            theirs = self._of_teacher(view, batch)
        maps = [view.answered_output(path) for path in self.paths]
        with view.in_its_precision():
            own = self._own([r(m) for r, m in zip(self._connectors, maps, strict=True)])
        return torch.stack(
            [F.mse_loss(s.float(), t) for s, t in zip(own, theirs, strict=True)]
        ).sum()

    def _of_teacher(self, view: View, batch: Batch) -> list[Tensor]:
        """Float32 [a, c_i] of each stage."""
        with view.in_its_precision():
            found: list[Tensor] = self._theirs(self._standardised(view, batch))
        return [value.float() for value in found]

    def _standardised(self, view: View, batch: Batch) -> list[Tensor]:
        """The teacher's maps on unit scale, which two players look at; made once a batch."""
        if self._made is None or self._made[0] is not batch or self._made[1] != view.half:
            maps = [
                scale.standardise(batch.answers[tap.name])
                for scale, tap in zip(self._scales, self._taps, strict=True)
            ]
            kept = [value if view.half is None else value.to(view.half) for value in maps]
            self._made = (batch, view.half, kept)
        return self._made[2]


def _batch_norm(features: int) -> nn.Module:
    return nn.BatchNorm1d(features, track_running_stats=False)


METHOD = KSANC
