"""When which stage runs, and how far the learning rate's schedule is."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ktan.errors import UserError
from ktan.methods.objective import Stage


@dataclass(frozen=True)
class Place:
    """Where a step stands."""

    number: int
    """Of the stage, from 0."""
    stage: Stage
    schedule_step: int
    """Step of the learning rate's schedule, from 0."""
    schedule_steps: int
    """Steps of that schedule."""


class StagePlan:
    """Stages laid over a run's steps by their shares. A function of both: nothing to save."""

    def __init__(self, stages: Sequence[Stage], steps: int) -> None:
        """Raises UserError when a stage would have no step."""
        total = sum(stage.share for stage in stages)
        ends = [round(steps * part / total) for part in accumulate(s.share for s in stages)]
        self._stages = tuple(stages)
        self._starts = [0, *ends[:-1]]
        self._ends = ends
        for stage, start, end in zip(stages, self._starts, ends, strict=True):
            if start >= end:
                raise UserError(
                    f"{steps} steps leave none for the stage '{stage.name}' of {len(stages)}; "
                    "train for longer (--epochs, --steps)"
                )
        # Where the schedule that covers each stage begins and ends.
        self._schedules: list[tuple[int, int]] = []
        for place, stage in enumerate(stages):
            first = self._starts[place]
            if place and not stage.restarts:
                first = self._schedules[-1][0]
            last = place
            while last + 1 < len(stages) and not stages[last + 1].restarts:
                last += 1
            self._schedules.append((first, ends[last]))

    def at(self, step: int) -> Place:
        """Of step number `step`, from 0."""
        number = bisect_right(self._starts, step) - 1
        first, end = self._schedules[number]
        return Place(number, self._stages[number], step - first, end - first)

    def asked(self, step: int) -> int:
        """How many further portions of queries were asked before this step is run."""
        number = bisect_right(self._starts, step) - 1
        return sum(stage.asks for stage in self._stages[: number + 1])


def in_rounds(stages: Sequence[Stage], rounds: int) -> tuple[Stage, ...]:
    """The last stage split into `rounds`, each after the first asking its own queries before it.

    One schedule covers them all, as without rounds. Raises UserError for stages that ask already.
    """
    if rounds < 1:
        raise UserError(f"--rounds is {rounds}; it must be at least 1")
    if rounds == 1:
        return tuple(stages)
    if any(stage.asks for stage in stages):
        raise UserError("this method has rounds of its own; set them with --method-set rounds=N")
    *before, last = stages
    parts = [
        replace(
            last,
            name=f"{last.name} {number + 1}",
            share=last.share / rounds,
            asks=number > 0,
            restarts=last.restarts and number == 0,
        )
        for number in range(rounds)
    ]
    return (*before, *parts)
