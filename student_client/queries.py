"""Chooses what to ask: a function of the seed, the options and public data alone.

The same choice whichever teacher is asked, so that runs compare sample by sample.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
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

    @property
    def sha256(self) -> str:
        """Of the positions in order: equal where two runs asked about the same samples."""
        return hashlib.sha256(self.positions.astype("<i8").tobytes()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "positions": self.positions.tolist()}


def choose(
    public: PublicData,
    network: nn.Module,
    path: str,
    options: QueryOptions,
    trainer: TrainerOptions,
    *,
    progress: bool = False,
) -> Chosen:
    """Chooses `options.queries` of the unlabelled public samples.

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

    rows = select(
        options.select,
        options.queries,
        len(public.unlabelled),
        features=features,
        logits=logits,
        generator=torch.Generator().manual_seed(trainer.seed),
    )
    return Chosen(rows, public.split.unlabelled[rows.numpy()])


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
    positions = np.array(json.loads(path.read_text())["positions"], dtype=np.int64)
    row_of = {position: row for row, position in enumerate(public.split.unlabelled.tolist())}
    rows = [row_of.get(position, -1) for position in positions.tolist()]
    if min(rows, default=-1) < 0:
        raise UserError(
            f"{path} names samples that are not in the unlabelled public part; resume with the "
            "data and split of the first run, or train into another folder"
        )
    return Chosen(torch.tensor(rows), positions)
