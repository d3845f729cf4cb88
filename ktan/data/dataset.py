"""What every data set is: samples in one tensor, labels, and ids of the units they belong to."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ktan.errors import UserError

UnitIds = np.ndarray
"""int64 [N] or str [N]: which unit (a person, by default a record) each record belongs to."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """All records of one data set, public and private together, before any split.

    Raises UserError when the parts do not fit one another.
    """

    name: str
    """What the user asked for, without the folder it was found in: `mnist`, `arrays:patients`."""
    classes: tuple[str, ...]
    samples: Tensor
    """uint8 [N, C, H, W] for images (values 0 to 255), float32 [N, d] for tables.

    May be memory-mapped: index it in batches, never write to it.
    """
    labels: Tensor
    """int64 [N], each the position of a class; -1 where there is no label."""
    unit_ids: UnitIds
    """int64 or str [N]; equal ids belong to the same unit. Never derived from pixels."""
    holdout: Tensor
    """bool [N]: True for the official test part; all False where the source names none."""
    location: Path
    """The file or folder that holds the data; a ledger's id is written beside or into it."""
    ids_given: bool = False
    """Whether the unit ids are the owner's own, so that a unit may hold several records; else every
    record is a unit. It is a fact of the form: whether some unit *does* hold several is private."""
    published: bool = False
    """Whether anybody can have all records (a benchmark, generated data); only such a set may be
    divided into private and public units by default numbers."""

    def __post_init__(self) -> None:
        count = len(self.samples)
        if count == 0:
            raise UserError(f"the data set {self.name} is empty")
        if not (len(self.labels) == len(self.unit_ids) == len(self.holdout) == count):
            raise UserError(
                f"{self.name}: {count} samples, {len(self.labels)} labels, {len(self.unit_ids)} "
                f"unit ids and {len(self.holdout)} holdout marks; all four must be equal"
            )
        images = self.samples.dtype == torch.uint8 and self.samples.ndim == 4
        table = self.samples.dtype == torch.float32 and self.samples.ndim == 2
        if not (images or table):
            raise UserError(
                f"{self.name}: samples are {self.samples.dtype} {list(self.samples.shape)}; "
                "give uint8 [N, C, H, W] for images or float32 [N, d] for tables"
            )
        if self.labels.dtype != torch.int64 or self.holdout.dtype != torch.bool:
            raise UserError(f"{self.name}: labels must be int64 and holdout marks bool")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < -1 or high >= len(self.classes):
            raise UserError(
                f"{self.name}: labels run from {low} to {high}, but there are "
                f"{len(self.classes)} classes (0 to {len(self.classes) - 1}, -1 for no label)"
            )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C, H, W) or (d,)."""
        return tuple(self.samples.shape[1:])

    @property
    def records_are_units(self) -> bool:
        """Whether every record is a unit of its own (then `dp-sgd` protects units, too)."""
        return not self.ids_given and len(np.unique(self.unit_ids)) == len(self.unit_ids)

    @property
    def id(self) -> str:
        """What a ledger is opened for: the name and a digest of the class names.

        The same records stay the same data set when the folder moves, when records are added,
        and whatever image size or number of records a run takes of them.
        """
        digest = hashlib.sha256("\x00".join(self.classes).encode()).hexdigest()[:12]
        return f"{self.name}/{len(self.classes)}-classes-{digest}"
