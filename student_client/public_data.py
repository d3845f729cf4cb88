"""The trainer's own data: public samples with labels, public samples to ask about, a test part.

Nothing here looks at the private part: on a student's host there need not be one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktan.data import Dataset, DataSource, Normalisation, Split, SplitRecipe, split
from ktan.data.unit_hash import unit_hash
from ktan.errors import UserError
from ktan.spool import taken

_MEASURED = 10_000
"""Samples that are enough to measure a mean and a deviation, and fit into memory as float64."""
_ENOUGH: Final = 1000
"""Labelled units of which a tenth can be spared for validation."""


@dataclass(frozen=True, eq=False)
class PublicData:
    """The public parts of one data set; samples as in `Dataset.samples`."""

    name: str
    classes: tuple[str, ...]
    split: Split
    normalisation: Normalisation
    labelled: Tensor
    labels: Tensor
    """int64 [l]."""
    unlabelled: Tensor
    unlabelled_labels: Tensor
    """int64 [u], -1 where there is none: to judge answers by, never to train on."""
    test: Tensor
    test_labels: Tensor
    validation: Tensor
    """Held out of the labelled part (`holding_out`); empty as loaded."""
    validation_labels: Tensor

    @classmethod
    def load(cls, source: DataSource, recipe: SplitRecipe) -> PublicData:
        """Loads and splits. Raises UserError when the data does not allow it."""
        dataset = source.load()
        parts = split(dataset, recipe)
        labelled, labels = _part(dataset, parts.labelled)
        unlabelled, unlabelled_labels = _part(dataset, parts.unlabelled)
        test, test_labels = _part(dataset, parts.test)
        return cls(
            name=dataset.name,
            classes=dataset.classes,
            split=parts,
            normalisation=_normalisation(max(unlabelled, labelled, key=len)),
            labelled=labelled,
            labels=labels,
            unlabelled=unlabelled,
            unlabelled_labels=unlabelled_labels,
            test=test,
            test_labels=test_labels,
            validation=labelled[:0],
            validation_labels=labels[:0],
        )

    def holding_out(self, validation: int | None) -> PublicData:
        """The same with this many labelled units held out of training, for the validation curve.

        A tenth of them when None and there are at least 1,000, else none. Which ones is a function
        of their ids and the split's seed. Raises UserError when none would be left to train on.
        """
        records = self.split.unit_ids[self.split.labelled]
        units = np.unique(records)
        count = validation
        if count is None:
            count = len(units) // 10 if len(units) >= _ENOUGH else 0
        if count < 0 or (count and count >= len(units)):
            raise UserError(
                f"--validation is {count}, and {self.name} has {len(units)} labelled units; hold "
                "out fewer, or give more with --labelled"
            )
        order = np.argsort(unit_hash(units, f"validation {self.split.recipe.seed}"), kind="stable")
        held = torch.from_numpy(np.isin(records, units[order[:count]]))
        return replace(
            self,
            labelled=taken(self.labelled, ~held),
            labels=self.labels[~held],
            validation=self.labelled[held],
            validation_labels=self.labels[held],
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.unlabelled.shape[1:])

    @property
    def input_dtype(self) -> str:
        return str(self.unlabelled.dtype).removeprefix("torch.")

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Samples and labels of `labelled`, `unlabelled` or `test`. Raises UserError."""
        parts = {
            "labelled": (self.labelled, self.labels),
            "unlabelled": (self.unlabelled, self.unlabelled_labels),
            "test": (self.test, self.test_labels),
        }
        if name not in parts:
            raise UserError(f"no public part is called '{name}'; choose one of {', '.join(parts)}")
        return parts[name]


def check_suits(
    public: PublicData, dtype: str, shape: tuple[int, ...], classes: tuple[str, ...], whose: str
) -> None:
    """Raises UserError unless `whose` input and classes are the data set's, classes in order."""
    if (dtype, tuple(shape)) != (public.input_dtype, public.input_shape):
        raise UserError(
            f"{whose} takes samples of {dtype} {list(shape)}, and {public.name} has "
            f"{public.input_dtype} {list(public.input_shape)}; give the data that it was made for "
            "(--dataset, --image-size, --grey)"
        )
    if len(classes) != len(public.classes):
        raise UserError(
            f"{whose} knows {len(classes)} classes, and {public.name} has {len(public.classes)}; "
            "give the data that it was made for (--dataset)"
        )
    for number, (theirs, ours) in enumerate(zip(classes, public.classes, strict=True)):
        if theirs != ours:
            raise UserError(
                f"class {number} is '{theirs}' to {whose} and '{ours}' in {public.name}; "
                "rename the classes of the data, in the same order"
            )


def _part(dataset: Dataset, positions: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(positions)
    return taken(dataset.samples, rows), dataset.labels[rows]


def _normalisation(public: Tensor) -> Normalisation:
    if len(public) == 0:
        return Normalisation.neutral(public)
    return Normalisation.of_public(public[:: max(1, len(public) // _MEASURED)])
