"""A method in a loop of one's own: `loss = method(student, (samples, labels), answers)`.

Made by `ktan.distil`. Players other than the student (a discriminator) take their turns within the
call, by optimisers of their own.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ktan.checkpoint import lay_as_parameters
from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.methods import STUDENT, Batch, Objective, Stage
from ktan.optimisers import learning_rate, make_optimiser
from ktan.random_state import RandomState
from ktan.schedule import StagePlan
from ktan.teacher import AnswerTap
from ktan.teachers.live import LiveTeacher

Samples = tuple[Tensor, Tensor | None]
"""float [n, ...] as the student takes them (or raw, see `Distiller.normalise`), and int64 [n]:
labels, -1 where there is none, None when none has one."""


class Distiller(nn.Module):
    """A method bound to a student, as a module that returns the student's loss.

    `state_dict` holds all that the next call depends on but the student: what the method trains,
    the opponents' optimisers, the number of calls and the random state.
    """

    def __init__(
        self,
        objective: Objective,
        taps: Mapping[str, AnswerTap],
        teacher: LiveTeacher | None = None,
        *,
        steps: int | None = None,
        normalise: Normalisation | None = None,
        opponent_learning_rate: float = 3e-3,
        seed: int = 0,
    ) -> None:
        """`taps`: what each batch needs answers to; `teacher`: answers those that come without.

        `steps`: calls in the whole run, over which stages and the opponents' learning rate are
        laid; without it the rate is constant, and a method of several stages is refused.
        `normalise`: brings samples to what the student takes; without it they come so.
        Raises UserError.
        """
        super().__init__()
        if steps is None and len(objective.stages) > 1:
            names = ", ".join(stage.name for stage in objective.stages)
            raise UserError(f"the method has the stages {names}; give steps=N, the calls in a run")
        self.objective = objective
        self.taps = dict(taps)
        self.teacher = teacher
        self.normalise = normalise
        self.step = 0
        """Calls so far; a call in evaluation mode or without gradients is none."""
        self.losses: dict[str, Tensor] = {}
        """Each term of every player at the last call, weighted; for curves."""
        self._steps = steps
        self._plan = None if steps is None else StagePlan(objective.stages, steps)
        self._rate = opponent_learning_rate
        self._optimisers = {
            player: make_optimiser(objective.learnables(player), "adversary")
            for player in objective.players
            if player != STUDENT
        }
        self._random = RandomState(seed, torch.device("cpu"))
        self._random_device = torch.device("cpu")

    @property
    def stage(self) -> Stage:
        """Of the next call."""
        if self._plan is None:
            return self.objective.stages[0]
        return self._plan.at(self._place).stage

    @property
    def asked(self) -> int:
        """How many further portions of the queries are due before the next call (RONA)."""
        return 0 if self._plan is None else self._plan.asked(self._place)

    def forward(
        self,
        student: nn.Module,
        batch: Samples | Tensor | Batch,
        answers: Mapping[str, Tensor] | None = None,
        *,
        labelled: Samples | None = None,
        views: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The student's loss on a batch: a scalar to call `backward` on.

        `answers`: tap → float [n, ...], the teacher's to the samples of `batch`; None, or empty,
        where a live teacher stands by, or the method asks nobody. `labelled`: further samples,
        with labels, that no teacher was asked about. `views`: weak and strong views of unlabelled
        samples.

        In training mode the opponents move first, each one step, and the call counts as a step of
        the run. Raises UserError for answers that are missing.
        """
        if not isinstance(batch, Batch):
            batch = self._batch(batch, answers, labelled, views)
        device = batch.samples.device
        self._move_random(device)
        with self._random.within():
            view = self.objective.observe(student, batch)
            # As in the trainer: the pass may be in reduced precision, what is made of it is not.
            with torch.autocast(device.type, enabled=False):
                stage = self.stage
                self.losses = {}
                moves = self.training and torch.is_grad_enabled()
                for player, optimiser in self._optimisers.items():
                    with self.objective.turn_of(player):
                        losses = self.objective.losses(player, view, batch, stage)
                        if losses and moves:
                            self._turn(player, optimiser, losses)
                    self._note(losses)
                with self.objective.turn_of(STUDENT):
                    losses = self.objective.losses(STUDENT, view, batch, stage)
                    trained = [*student.parameters(), *self.parameters()]
                    # In a stage of the opponents' alone the student has a loss of 0.
                    loss = self.objective.total(losses or {"": view.logits.sum() * 0}, trained)
        self._note(losses)
        self.step += moves
        return loss

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """What the student's optimiser is to train beside the student: connectors, exits. Not the
        opponents, which have their own."""
        ours = set(self.objective.learnables(STUDENT))
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            if parameter in ours:
                yield name, parameter

    def get_extra_state(self) -> dict[str, Any]:
        """Tensors and plain values alone, which torch loads with `weights_only=True`."""
        return {
            "step": self.step,
            "random": self._random.states,
            "opponents": {name: made.state_dict() for name, made in self._optimisers.items()},
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self.step = int(state["step"])
        self._random = self._random.restored(state["random"], self._random_device)
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state["opponents"][name])
            lay_as_parameters(optimiser)

    @property
    def _place(self) -> int:
        assert self._steps is not None
        return min(self.step, self._steps - 1)

    def _batch(
        self,
        batch: Samples | Tensor,
        answers: Mapping[str, Tensor] | None,
        labelled: Samples | None,
        views: tuple[Tensor, Tensor] | None,
    ) -> Batch:
        raw, labels = (batch, None) if isinstance(batch, Tensor) else batch
        if not answers and self.teacher is not None:
            answers = self.teacher.answer_step(raw, self.step)
        answers = answers or {}
        lacking = [name for name in self.taps if name not in answers]
        if lacking:
            raise UserError(
                f"the batch comes without answers of {', '.join(lacking)}; give answers=, or a "
                "network of this process as the teacher"
            )
        for name in self.taps:
            if len(answers[name]) != len(raw):
                raise UserError(
                    f"{len(raw)} samples and {len(answers[name])} answers of {name}; samples that "
                    "have labels alone go into labelled="
                )
        if self.objective.unlabelled and views is None:
            raise UserError("the method looks at views of unlabelled samples; give views=(weak, "
                            "strong)")  # fmt: skip
        known, known_labels = labelled or (raw[:0], None)
        weak, strong = views or (None, None)
        return Batch(
            labelled=self._ready(known),
            labels=_labels(known, known_labels),
            answered=self._ready(raw),
            answers={name: answers[name].to(raw.device, torch.float32) for name in self.taps},
            answered_labels=_labels(raw, labels),
            weak=None if weak is None else self._ready(weak),
            strong=None if strong is None else self._ready(strong),
        )

    def _ready(self, samples: Tensor) -> Tensor:
        return samples if self.normalise is None else self.normalise(samples)

    def _turn(
        self, player: str, optimiser: torch.optim.Optimizer, losses: Mapping[str, Tensor]
    ) -> None:
        rate = self._rate
        if self._plan is not None:
            place = self._plan.at(self._place)
            rate = learning_rate(rate, place.schedule_step, place.schedule_steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        self.objective.backward(losses, self.objective.learnables(player))
        optimiser.step()
        # Nothing is left for another optimiser that was given these parameters too.
        optimiser.zero_grad(set_to_none=True)

    def _note(self, losses: Mapping[str, Tensor]) -> None:
        self.losses.update({name: loss.detach() for name, loss in losses.items()})

    def _move_random(self, device: torch.device) -> None:
        if device != self._random_device:
            self._random_device = device
            self._random = self._random.restored(self._random.states, device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for optimiser in self._optimisers.values():
            optimiser.load_state_dict(optimiser.state_dict())
            lay_as_parameters(optimiser)
        if self.teacher is not None:
            self.teacher.to(fn(torch.empty(0)).device)
        return self


def _labels(samples: Tensor, labels: Tensor | None) -> Tensor:
    if labels is None:
        return torch.full((len(samples),), -1, dtype=torch.int64, device=samples.device)
    return labels.to(samples.device)
