"""Chooses what to ask: a function of the seed, the options and public data alone.

The same first choice whichever teacher is asked, so that runs compare sample by sample; later
rounds choose by the student, and so by what it was answered.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ktan.durable import write_durably
from ktan.errors import UserError
from ktan.evaluation import student_features, student_logits
from ktan.methods import Binding
from ktan.methods.local import Local
from ktan.precision import resolve_device
from ktan.selection import select
from ktan.trainer import TrainerOptions, train
from ktan.training_data import TrainingData
from student_client.options import QueryOptions
from student_client.public_data import PublicData

SELECTION = "selection.json"


@dataclass(frozen=True, eq=False)
class Chosen:
    """Rows of `PublicData.unlabelled`, in the order in which they are asked."""

    rows: Tensor
    """int64 [queries]."""
    positions: npt.NDArray[np.int64]
    """The same as positions in the data set."""
    rounds: tuple[int, ...]
    """How many of them were chosen in each round."""
    closed: bool = False
    """Whether no further round will ask, however many were planned."""

    def upto(self, rounds: int) -> Chosen:
        """The choice of the first rounds alone."""
        count = sum(self.rounds[:rounds])
        rows, positions = self.rows[:count], self.positions[:count]
        return Chosen(rows, positions, self.rounds[:rounds], self.closed)

    def closing(self, answered: Tensor) -> Chosen:
        """What is answered of this (bool [queries]), with no further round to come."""
        parts = [int(part.sum()) for part in answered.split(self.rounds)]
        kept = self.rows[answered], self.positions[answered.numpy()]
        return Chosen(*kept, tuple(part for part in parts if part), closed=True)

    @property
    def sha256(self) -> str:
        """Of the positions in order: equal where two runs asked about the same samples."""
        return hashlib.sha256(self.positions.astype("<i8").tobytes()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "sha256": self.sha256,
            "rounds": list(self.rounds),
            "closed": self.closed,
            "positions": self.positions.tolist(),
        }


def portions(queries: int, rounds: int, candidates: int) -> tuple[int, ...]:
    """How many of `queries` each round asks: even, the first ones one more where it must be.

    Raises UserError when a round would ask nothing, or all of them more than there are candidates.
    """
    if rounds < 1:
        raise UserError(f"--rounds is {rounds}; it must be at least 1")
    if queries < rounds:
        raise UserError(f"--queries is {queries}; it must be at least {rounds}, one for each round")
    if queries > candidates:
        raise UserError(
            f"{queries} queries asked for, {candidates} unlabelled public samples are there; "
            "lower --queries or give more public data"
        )
    each, more = divmod(queries, rounds)
    return tuple(each + (number < more) for number in range(rounds))


def choose(
    public: PublicData,
    network: nn.Module,
    path: str,
    options: QueryOptions,
    trainer: TrainerOptions,
    *,
    count: int | None = None,
    progress: bool = False,
) -> Chosen:
    """Chooses the first `count` (all, `options.queries`, when None) of the unlabelled samples.

    `network`: the student as it begins, left as it is; `path`: its module whose features the
    k-centre selections look at, after `options.select_steps` steps on the public labels. Raises
    UserError for more queries than samples.
    """
    if options.queries < 1:
        raise UserError(f"--queries is {options.queries}; it must be at least 1")
    if options.select_steps < 0:
        raise UserError(f"--select-steps is {options.select_steps}; it cannot be negative")

    @functools.cache
    def student() -> nn.Module:
        return _acquainted(public, network, options.select_steps, trainer, progress)

    wanted = options.queries if count is None else count
    rows = _select(public, student, path, options, trainer, wanted)
    return Chosen(rows, public.split.unlabelled[rows.numpy()], (wanted,))


def choose_further(
    public: PublicData,
    student: nn.Module,
    path: str,
    options: QueryOptions,
    trainer: TrainerOptions,
    before: Chosen,
    count: int,
) -> Chosen:
    """`before` and a further round of `count` samples, by the student as it stands."""
    rows = _select(public, lambda: student, path, options, trainer, count, before.rows)
    rows = torch.cat([before.rows, rows])
    return Chosen(rows, public.split.unlabelled[rows.numpy()], (*before.rounds, count))


def _select(
    public: PublicData,
    student: Callable[[], nn.Module],
    path: str,
    options: QueryOptions,
    trainer: TrainerOptions,
    count: int,
    already: Tensor | None = None,
) -> Tensor:
    """Rows of `count` samples; `student` is called only by selections that look at one."""

    def features() -> Tensor:
        return student_features(
            student(),
            path,
            public.unlabelled,
            normalise=public.normalisation,
            precision=trainer.precision,
        )

    def logits() -> Tensor:
        return student_logits(
            student(),
            public.unlabelled,
            normalise=public.normalisation,
            precision=trainer.precision,
        )

    return select(
        options.select,
        count,
        len(public.unlabelled),
        features=features,
        logits=logits,
        already=already,
        generator=torch.Generator().manual_seed(trainer.seed),
    )


def _acquainted(
    public: PublicData, network: nn.Module, steps: int, trainer: TrainerOptions, progress: bool
) -> nn.Module:
    """A copy of the student after a few steps on the public labels, where there are any."""
    student = copy.deepcopy(network).to(resolve_device(trainer.device))
    if steps == 0 or len(public.labelled) == 0:
        return student
    data = TrainingData(public.labelled, public.labels)
    objective = Local().build(Binding(student, public.input_shape, len(public.classes)))
    brief = replace(trainer, steps=steps)
    train(student, objective, data, brief, normalise=public.normalisation, progress=progress)
    return student


def write_selection(folder: Path, chosen: Chosen) -> None:
    """Records the choice, so that a resumed run asks about the same samples on any machine."""
    write_durably(folder / SELECTION, (json.dumps(chosen.to_json()) + "\n").encode())


def read_selection(folder: Path, public: PublicData) -> Chosen | None:
    """The recorded choice, None when there is none. Raises UserError when it is of other data."""
    path = folder / SELECTION
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    positions = np.array(content["positions"], dtype=np.int64)
    unlabelled = public.split.unlabelled
    rows = np.searchsorted(unlabelled, positions)
    known = np.isin(positions, unlabelled)
    if not len(positions) or not known.all():
        raise UserError(
            f"{path} names samples that are not in the unlabelled public part; resume with the "
            "data and split of the first run, or train into another folder"
        )
    return Chosen(
        torch.from_numpy(rows),
        positions,
        tuple(content.get("rounds", [len(rows)])),
        content.get("closed", False),
    )
