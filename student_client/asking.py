"""Rounds of queries: each portion is chosen by the student as it stands, recorded, then asked.

What a round chose is on disk before the round is asked: a run that was cut off in between, or in
any stage after it, asks about the same samples and pays for none of them twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from torch import nn

from ktan.errors import UserError
from ktan.methods import Stage
from ktan.parallel import ONE, Group
from ktan.schedule import StagePlan
from ktan.trainer import TrainerOptions
from student_client.errors import TeacherError, TeacherUnavailable
from student_client.options import QueryOptions
from student_client.public_data import PublicData
from student_client.queries import (
    Chosen,
    choose,
    choose_further,
    portions,
    read_selection,
    write_selection,
)
from student_client.screen import Screen
from student_client.sources import Answers, Source


@dataclass(eq=False)
class Asking:
    """The queries of one run, from the first portion to the last."""

    public: PublicData
    source: Source
    options: QueryOptions
    trainer: TrainerOptions
    path: str
    """The student's module whose features the k-centre selections look at."""
    folder: Path
    """Gets the choice of every round."""
    screen: Screen
    chosen: Chosen | None
    """All that was chosen so far; further than what was asked where a run was cut off."""
    group: Group = ONE
    """The processes of the run: the first one chooses and asks, the others follow it."""
    portions: tuple[int, ...] = field(init=False, default=())
    """Samples of each round."""
    asked: Chosen | None = field(init=False, default=None)
    answers: Answers | None = field(init=False, default=None)
    """To what is `asked` so far."""

    @property
    def complete(self) -> Chosen | None:
        """The whole choice, where no round is left to choose."""
        chosen = self.chosen
        if chosen is None or not (chosen.closed or len(chosen.rows) == self.options.queries):
            return None
        return chosen

    def begin(self, student: nn.Module, stages: Sequence[Stage]) -> Answers:
        """Agrees on the price of all rounds, and brings the answers to the first.

        There is a round for each of `stages` that asks, and the first. The first portion is chosen
        by a student that was briefly trained on the public labels. Raises UserError for stages that
        do not fit into the run, and as `Source.answers` does.
        """
        rounds = 1 + sum(stage.asks for stage in stages)
        self.portions = portions(self.options.queries, rounds, len(self.public.unlabelled))
        # What no training can run with must be found before anything is paid for.
        StagePlan(stages, self._steps)
        chosen = self.chosen
        if chosen is None:
            self._require_leader()
            chosen = choose(
                self.public, student, self.path, self.options, self.trainer,
                count=self.portions[0], progress=self.screen.bars,
            )  # fmt: skip
            self._record(chosen)
        planned = chosen.rounds if chosen.closed else self.portions
        for asked in accumulate(planned):
            # Before anything is paid for; no step has more than there are.
            self.group.share(min(self.trainer.answered_batch, asked), "answered")
        total, rounds = sum(planned), len(planned)
        self.screen.fact(
            "Queries",
            f"{total:,} of {len(self.public.unlabelled):,} public samples"
            + (f" in {rounds} rounds" if rounds > 1 else "")
            + f", chosen by {self.options.select}",
        )
        later = 0 if chosen.closed else total - len(chosen.rows)
        self.source.agree(self.public, chosen, later)
        return self._ask(chosen.upto(1))

    def further(self, rounds: int, student: nn.Module) -> None:
        """Brings the answers to `rounds` further portions; each is chosen once, by `student`.

        Raises as `Source.answers` does, after saying what becomes of the run.
        """
        if not self.group.leads:
            self.chosen = read_selection(self.folder, self.public)
        assert self.chosen is not None
        if self.chosen.closed:
            rounds = min(rounds, len(self.chosen.rounds) - 1)
        while len(self.chosen.rounds) <= rounds:
            self._require_leader()
            count = self.portions[len(self.chosen.rounds)]
            self._record(
                choose_further(
                    self.public, student, self.path, self.options, self.trainer, self.chosen, count
                )
            )
        try:
            self._ask(self.chosen.upto(rounds + 1))
        except (TeacherError, TeacherUnavailable):
            self.screen.say(
                f"round {rounds + 1} of {len(self.portions)} was not answered in full; student, "
                "choice and answers are kept. With --resume --enough the run goes on without "
                "asking for more"
            )
            raise

    def in_steps(self) -> TrainerOptions:
        """The trainer's options, where epochs are passes over the answers to *all* rounds."""
        if len(self.portions) == 1 or self.trainer.steps is not None:
            return self.trainer
        return replace(self.trainer, steps=self._steps)

    @property
    def _steps(self) -> int:
        if self.trainer.steps is not None:
            return self.trainer.steps
        total = sum(self.portions)
        return self.trainer.epochs * math.ceil(total / min(self.trainer.answered_batch, total))

    def close(self) -> None:
        """Asks for nothing more, in this run and when it is resumed: what is answered is enough.

        Raises UserError while the first round is not answered.
        """
        chosen = self.chosen
        if chosen is None or not bool(self.source.stored(self.public, chosen.upto(1)).all()):
            raise UserError("--enough: the first round is not answered yet; resume without it")
        self._record(chosen.closing(self.source.stored(self.public, chosen)))

    def _ask(self, chosen: Chosen) -> Answers:
        self.answers = self.source.answers(self.public, chosen)
        self.asked = chosen
        return self.answers

    def _require_leader(self) -> None:
        if not self.group.leads:
            raise UserError(
                f"this process does not see in {self.folder} what the first one chose; all must "
                "see the same files under --out"
            )

    def _record(self, chosen: Chosen) -> None:
        write_selection(self.folder, chosen)
        self.chosen = chosen
