"""KTAN's adversarial game over hints, as terms that any method with hints may weigh in.

    L_D = −log D(F_t) − log(1 − D(r(F_s) + n)),    L_adv = −log D(r(F_s) + n)

n is fresh noise of the sd published for F_t (matched noise), so that what separates real from fake
is the signal alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ktan.discriminators import discriminator, weights_made_once
from ktan.losses import (
    discrimination_loss,
    discriminator_accuracy,
    generation_loss,
    with_matched_noise,
)
from ktan.methods.batch import Batch, View
from ktan.methods.hint_pairs import HintPair, HintPairs
from ktan.methods.objective import DISCRIMINATOR, STUDENT, Term

GAME = ("adversarial", "discriminator")
"""The terms' names: the student's, and the discriminator's."""


class HintGame:
    """A discriminator for each hint, its term and the student's."""

    def __init__(self, pairs: HintPairs, width: int, rest: float) -> None:
        """`width`: hidden units (channels, for a map) of each discriminator; `rest`: it rests while
        it tells this share of a batch's hints right."""
        self._pairs = pairs
        self._rest = rest
        self.judges: dict[str, nn.Module] = {
            key: discriminator(shape, width) for key, shape in pairs.shapes.items()
        }

    def terms(self, weight: float) -> list[Term]:
        """The student's term at this weight, and the discriminator's own."""
        own, opponents = GAME
        return [
            Term(own, STUDENT, weight, self._generation),
            Term(opponents, DISCRIMINATOR, 1.0, self._discrimination),
        ]

    def measures(self, view: View, batch: Batch) -> dict[str, Tensor]:
        """The discriminators' mean accuracy; 0.5 where they cannot tell."""
        games = self._games(view, batch)
        return {"discriminator_accuracy": _mean([discriminator_accuracy(*game) for game in games])}

    def _generation(self, view: View, batch: Batch) -> Tensor:
        pairs = self._pairs(view, batch)
        return _mean([generation_loss(self._scores(pair.key, _fake(pair), view)) for pair in pairs])

    def _discrimination(self, view: View, batch: Batch) -> Tensor:
        losses = []
        for game in self._games(view, batch):
            told = view.group.mean(discriminator_accuracy(*game))
            losses.append(discrimination_loss(*game, self._rest, told))
        return _mean(losses)

    def _games(self, view: View, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """D's scores of the teacher's and of the student's hints, from one call of D."""
        with torch.no_grad():
            pairs = self._pairs(view, batch)
            both = [torch.cat([pair.teacher, _fake(pair)]) for pair in pairs]
        scores = [
            self._scores(pair.key, hints, view) for pair, hints in zip(pairs, both, strict=True)
        ]
        return [(real, fake) for real, fake in (score.chunk(2) for score in scores)]

    def _scores(self, key: str, hints: Tensor, view: View) -> Tensor:
        judge = self.judges[key]
        if hints.ndim == 2:
            found: Tensor = judge(hints)
            return found
        with weights_made_once(judge), view.in_its_precision():
            found = judge(hints)
        return found.float()


def _fake(pair: HintPair) -> Tensor:
    return with_matched_noise(pair.student, pair.noise_sd)


def _mean(values: Sequence[Tensor]) -> Tensor:
    """Of scalars."""
    return torch.stack(list(values)).mean()
