"""A data set refuses parts that do not fit, and keeps its identity when it moves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ktan.data.dataset import Dataset
from ktan.errors import UserError


def small(**changes: object) -> Dataset:
    parts: dict[str, object] = {
        "name": "small",
        "classes": ("a", "b"),
        "samples": torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, -1, 1]),
        "unit_ids": np.arange(4),
        "holdout": torch.zeros(4, dtype=torch.bool),
        "location": Path("somewhere"),
    }
    return Dataset(**{**parts, **changes})  # type: ignore[arg-type]


def test_a_fitting_data_set() -> None:
    dataset = small()
    assert len(dataset) == 4
    assert dataset.input_shape == (1, 2, 2)
    assert dataset.records_are_units
    assert not replace(dataset, unit_ids=np.array(["p", "q", "p", "r"])).records_are_units
    # Were it asked of the ids alone, a second record of one person would rename the promise.
    assert not replace(dataset, ids_given=True).records_are_units


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([0, 1, 1])}, "3 labels"),
        ({"unit_ids": np.arange(5)}, "5 unit ids"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, "labels run from 0 to 2"),
        ({"labels": torch.tensor([0, 1, -2, 0])}, "labels run from -2"),
        ({"labels": torch.tensor([0, 1, 1, 0], dtype=torch.int32)}, "int64"),
        ({"samples": torch.zeros(4, 1, 2, 2)}, "uint8"),
        ({"samples": torch.zeros(4, 2, dtype=torch.float64)}, "float32"),
        (
            {
                "samples": torch.zeros(0, 2),
                "labels": torch.zeros(0, dtype=torch.int64),
                "unit_ids": np.arange(0),
                "holdout": torch.zeros(0, dtype=torch.bool),
            },
            "empty",
        ),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**changes)


def test_identity_is_name_and_classes() -> None:
    dataset = small()
    moved = replace(dataset, location=Path("elsewhere"))
    longer = small(
        samples=torch.zeros(9, 1, 4, 4, dtype=torch.uint8),
        labels=torch.zeros(9, dtype=torch.int64),
        unit_ids=np.arange(9),
        holdout=torch.ones(9, dtype=torch.bool),
    )
    assert moved.id == longer.id == dataset.id
    assert replace(dataset, name="other").id != dataset.id
    assert replace(dataset, classes=("a", "c")).id != dataset.id
    assert replace(dataset, classes=("a\x00", "b")).id != dataset.id
