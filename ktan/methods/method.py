"""What a distillation method is: weighted loss terms, and who plays each of them.

A method is a frozen dataclass of its options. `build` binds it to one student and one teacher's
taps and gives an `Objective`. The trainer knows only objectives; a loop of one's own needs no more:

    objective = KTAN().build(student, shape, teacher.taps, {"hint": "features"}, answers)
    for batch in batches:
        loss = objective(student, batch)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.taps import read_taps
from ktan.teacher import AnswerTap

STUDENT = "student"


@dataclass(frozen=True)
class Batch:
    """One step's samples, normalised and augmented; either part may be empty."""

    labelled: Tensor
    """float [l, ...]."""
    labels: Tensor
    """int64 [l]."""
    answered: Tensor
    """float [a, ...]."""
    answers: Mapping[str, Tensor]
    """Tap name → float32 [a, ...], as released."""
    answered_labels: Tensor
    """int64 [a], -1 where the public sample has no label."""

    def __len__(self) -> int:
        return len(self.labelled) + len(self.answered)

    @property
    def all_labels(self) -> Tensor:
        """int64 [l + a], in the order of `View.logits`."""
        return torch.cat([self.labels, self.answered_labels])


@dataclass(frozen=True)
class View:
    """What the student makes of a batch: one forward pass, labelled samples first."""

    logits: Tensor
    """float32 [l + a, classes]."""
    features: Mapping[str, Tensor]
    """Student's module path → float32 [l + a, ...]."""
    labelled: int
    """l."""

    @property
    def answered_logits(self) -> Tensor:
        return self.logits[self.labelled :]

    def answered_features(self, path: str) -> Tensor:
        return self.features[path][self.labelled :]


@dataclass(frozen=True)
class Term:
    """One weighted summand of one player's loss; `name` is its curve's."""

    name: str
    player: str
    weight: float
    loss: Callable[[View, Batch], Tensor]


class Objective(nn.Module):
    """A method bound to a student: its terms, and the modules that it trains beside the student.

    `modules_of`: player → name → module. Players move in the order of that mapping, the student
    last: one forward pass of the student serves them all, and the student meets opponents that
    have already moved. `measures` give figures of the game that are no losses.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        modules_of: Mapping[str, Mapping[str, nn.Module]] | None = None,
        *,
        paths: Iterable[str] = (),
        measures: Callable[[View, Batch], dict[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.paths = tuple(dict.fromkeys(paths))
        owned = dict(modules_of or {})
        self.players = (*(player for player in owned if player != STUDENT), STUDENT)
        strangers = {term.player for term in terms} - set(self.players)
        if strangers:
            raise ValueError(f"terms of players {sorted(strangers)} that train nothing")
        self.owned = nn.ModuleDict(
            {player: nn.ModuleDict(dict(modules)) for player, modules in owned.items()}
        )
        self._measures = measures

    def observe(self, student: nn.Module, batch: Batch) -> View:
        """The one forward pass that a step needs."""
        with read_taps(student, self.paths) as read:
            logits, features = read(torch.cat([batch.labelled, batch.answered]))
        return View(
            logits.float(),
            {path: feature.float() for path, feature in features.items()},
            len(batch.labelled),
        )

    def losses(self, player: str, view: View, batch: Batch) -> dict[str, Tensor]:
        """Term name → weighted loss of one player; their sum is what the player minimises."""
        return {
            term.name: term.weight * term.loss(view, batch)
            for term in self.terms
            if term.player == player
        }

    @torch.no_grad()
    def measures(self, view: View, batch: Batch) -> dict[str, Tensor]:
        """Figures of the game, such as the discriminator's accuracy; scalars."""
        return self._measures(view, batch) if self._measures else {}

    def learnables(self, player: str) -> list[nn.Parameter]:
        """What the objective trains for a player; the student's own network is not among it."""
        return list(self.owned[player].parameters()) if player in self.owned else []

    @contextmanager
    def turn_of(self, player: str) -> Iterator[None]:
        """Within, only this player's modules gather gradients."""
        others = [
            parameter
            for other in self.owned
            if other != player
            for parameter in self.learnables(other)
            if parameter.requires_grad
        ]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def forward(self, student: nn.Module, batch: Batch) -> Tensor:
        """The student's whole loss on a batch, for a loop of one's own."""
        with self.turn_of(STUDENT):
            terms = self.losses(STUDENT, self.observe(student, batch), batch)
        return torch.stack(list(terms.values())).sum()


class Method(Protocol):
    """Options of a method, and how it binds to a student."""

    def build(
        self,
        student: nn.Module,
        input_shape: tuple[int, ...],
        taps: Mapping[str, AnswerTap],
        paths: Mapping[str, str],
        answers: Mapping[str, Tensor],
    ) -> Objective:
        """Binds the method.

        `input_shape`: of one sample, for the dry run that finds the shapes of the student's taps;
        `taps`: what the teacher answers; `paths`: hint name → the student's module path that
        imitates it; `answers`: all answers at hand, tap → [n, ...].
        Raises UserError naming the taps that the method needs and the teacher does not answer.
        """
        ...


def response_tap(taps: Mapping[str, AnswerTap]) -> AnswerTap:
    """The tap that carries the teacher's opinion: probabilities, else logits.

    Raises UserError when the teacher answers neither.
    """
    for kind in ("probabilities", "logits"):
        for tap in taps.values():
            if tap.kind == kind:
                return tap
    raise UserError(
        f"this method needs a tap of probabilities or logits; the teacher answers {_named(taps)}"
    )


def hint_taps(taps: Mapping[str, AnswerTap], paths: Mapping[str, str]) -> list[AnswerTap]:
    """The hints that the teacher answers and the student imitates.

    Raises UserError when there is none, and for a path to a hint that the teacher does not answer.
    """
    hints = {name: tap for name, tap in taps.items() if tap.kind == "hint"}
    unknown = sorted(set(paths) - set(hints))
    if unknown:
        raise UserError(f"the teacher answers no hint {unknown[0]!r}; it answers {_named(taps)}")
    chosen = [tap for name, tap in hints.items() if name in paths]
    if not chosen:
        raise UserError(
            f"this method needs a hint and a student's tap for it; the teacher answers "
            f"{_named(taps)}, and the student's taps are given for {sorted(paths) or 'none'}"
        )
    return chosen


def _named(taps: Mapping[str, AnswerTap]) -> str:
    return ", ".join(f"{tap.name} ({tap.kind})" for tap in taps.values()) or "nothing"
