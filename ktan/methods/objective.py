"""A method bound to a student: weighted terms, who plays each of them, and in which stages.

The trainer knows only objectives, and no method by name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ktan.methods.batch import Batch, View
from ktan.parallel import ONE, Group
from ktan.tap_reader import read_taps

STUDENT = "student"
Pass = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
"""Samples → logits, and the features by path."""
DISCRIMINATOR = "discriminator"
"""An opponent that tells teacher from student; a method may have others."""


@dataclass(frozen=True)
class Term:
    """One weighted summand of one player's loss; `name` is its curve's."""

    name: str
    player: str
    weight: float
    loss: Callable[[View, Batch], Tensor]
    bounded_by: str | None = None
    """Another term of the same player: this one's gradient is scaled down to that one's L2 norm
    where it is larger (KD-SVD clips the distillation gradient so)."""


@dataclass(frozen=True)
class Stage:
    """A stretch of a run in which some of the terms are active."""

    name: str
    share: float = 1.0
    """Of the run's steps, relative to the other stages' shares."""
    terms: tuple[str, ...] | None = None
    """Names of the active terms; all when None. A player without one rests."""
    asks: bool = False
    """Whether a further portion of the queries is chosen and asked before the stage begins. The
    first portion is there from the beginning."""
    restarts: bool = True
    """Whether the learning rate's schedule begins anew; a stage that does not is a part of the
    schedule of the one before it."""
    rests: tuple[str, ...] = ()
    """Names of terms that are not active although `terms` is None: what an initial stage trained
    rests in a last stage that is open to the terms of other methods."""

    def runs(self, term: str) -> bool:
        """Whether a term is active."""
        return term not in self.rests and (self.terms is None or term in self.terms)


class Objective(nn.Module):
    """A method bound to a student: its terms, and the modules that it trains beside the student.

    `modules_of`: player → name → module. Players move in the order of that mapping, the student
    last: one forward pass of the student serves them all, and the student meets opponents that
    have already moved. `measures` give figures of the game that are no losses. `unlabelled`: a
    term looks at views of unlabelled samples (`Batch.weak`).
    """

    def __init__(
        self,
        terms: Sequence[Term],
        modules_of: Mapping[str, Mapping[str, nn.Module]] | None = None,
        *,
        paths: Iterable[str] = (),
        measures: Callable[[View, Batch], dict[str, Tensor]] | None = None,
        stages: Sequence[Stage] = (Stage("training"),),
        unlabelled: bool = False,
    ) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.paths = tuple(dict.fromkeys(paths))
        self.stages = tuple(stages)
        self.unlabelled = unlabelled
        owned = dict(modules_of or {})
        self.players = (*(player for player in owned if player != STUDENT), STUDENT)
        names = [term.name for term in terms]
        strangers = {term.player for term in terms} - set(self.players)
        if strangers:
            raise ValueError(f"terms of players {sorted(strangers)} that train nothing")
        named = {name for stage in stages for name in (*(stage.terms or ()), *stage.rests)}
        unknown = named - set(names)
        if unknown or len(set(names)) != len(names) or not stages:
            raise ValueError(f"terms {names}, and stages of {sorted(unknown)}")
        self.owned = nn.ModuleDict(
            {player: nn.ModuleDict(dict(modules)) for player, modules in owned.items()}
        )
        self._measures = measures
        self.group = ONE
        """The processes that share each step; the trainer's to set."""

    def observe(self, student: nn.Module, batch: Batch) -> View:
        """The one forward pass that a step needs; under autocast, where the caller asks for it."""
        with read_taps(student, self.paths) as read:
            return self.view(read, batch)

    def view(self, read: Pass, batch: Batch) -> View:
        """The same by a pass that sees `paths`, which several steps may share."""
        samples = batch.samples
        logits, features = read(samples)
        device = samples.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return View(
            logits.float(), features, len(batch.labelled), len(batch.answered), half, self.group
        )

    def losses(
        self, player: str, view: View, batch: Batch, stage: Stage | None = None
    ) -> dict[str, Tensor]:
        """Term name → weighted loss of one player; their sum is what the player minimises.

        In a stage only its terms; none is an empty dictionary, and the player rests.
        """
        # A view of this turn's own: see `ktan.methods.once`.
        view = copy(view)
        return {
            term.name: term.weight * term.loss(view, batch)
            for term in self.terms
            if term.player == player and (stage is None or stage.runs(term.name))
        }

    def backward(self, losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> None:
        """Adds the gradient of what `losses` returned to `parameters`, bounded terms bounded."""
        bounds = self._bounds(losses)
        free = [loss for name, loss in losses.items() if name not in bounds]
        if bounds:
            scaled = [
                _bounded(losses[name], losses[by], parameters, self.group)
                for name, by in bounds.items()
            ]
            for gradients in scaled:
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        old = parameter.grad
                        total = gradient if old is None else old + gradient
                        parameter.grad = _laid(total, parameter)
        torch.stack(free).sum().backward()  # type: ignore[no-untyped-call]

    def total(self, losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> Tensor:
        """One scalar with the gradient that `backward` would add to `parameters`; its value is that
        of the terms as bounded."""
        values = dict(losses)
        if torch.is_grad_enabled():
            for name, by in self._bounds(losses).items():
                pair = (_gradient(losses[term], parameters, self.group) for term in (name, by))
                scale = _scale(*pair)
                values[name] = losses[name] * scale
        return torch.stack(list(values.values())).sum()

    def _bounds(self, losses: Mapping[str, Tensor]) -> dict[str, str]:
        """Bounded term → the term that bounds it, of those that are there."""
        return {
            term.name: term.bounded_by
            for term in self.terms
            if term.name in losses and term.bounded_by is not None and term.bounded_by in losses
        }

    @torch.no_grad()
    def measures(self, view: View, batch: Batch) -> dict[str, Tensor]:
        """Figures of the game, such as the discriminator's accuracy; scalars."""
        return self._measures(copy(view), batch) if self._measures else {}

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

    def forward(self, student: nn.Module, batch: Batch, stage: Stage | None = None) -> Tensor:
        """The student's whole loss on a batch, bounded terms bounded."""
        with self.turn_of(STUDENT):
            losses = self.losses(STUDENT, self.observe(student, batch), batch, stage)
            return self.total(losses, [*student.parameters(), *self.learnables(STUDENT)])


def _bounded(
    loss: Tensor, by: Tensor, parameters: Sequence[nn.Parameter], group: Group
) -> list[Tensor | None]:
    """The gradient of `loss`, scaled to at most the L2 norm of that of `by`."""
    own, other = (_gradient(value, parameters, group) for value in (loss, by))
    scale = _scale(own, other)
    return [None if gradient is None else gradient * scale for gradient in own]


def _gradient(
    loss: Tensor, parameters: Sequence[nn.Parameter], group: Group
) -> tuple[Tensor | None, ...]:
    """On the whole step's samples: what is not linear in it must not see one process's share."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    group.average([gradient for gradient in found if gradient is not None])
    return found


def _laid(gradient: Tensor, parameter: Tensor) -> Tensor:
    """In the parameter's strides: a fused optimiser walks memory, not indices."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _scale(own: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> Tensor:
    """What brings the first gradient to at most the second's L2 norm."""
    norms = [
        torch.stack([g.norm() for g in gradients if g is not None]).norm()
        for gradients in (own, other)
    ]
    scale: Tensor = (norms[1] / norms[0].clamp(min=1e-12)).clamp(max=1.0)
    return scale
