"""One's own arrays: images in three layouts, tables, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ktan.data.arrays import load_arrays
from ktan.errors import UserError

RANDOM = np.random.default_rng(0)


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


def test_a_table_with_everything(tmp_path: Path) -> None:
    table = RANDOM.normal(size=(6, 3))
    dataset = load_arrays(
        write(
            tmp_path,
            samples=table,
            labels=np.array([0, 1, -1, 1, 0, 0], dtype=np.int8),
            unit_ids=np.array(["ann", "bob", "ann", "cy", "cy", "di"]),
            holdout=np.array([False, False, False, False, False, True]),
            classes=np.array(["healthy", "ill"]),
        )
    )
    assert dataset.name == "arrays:mine"
    assert dataset.classes == ("healthy", "ill")
    np.testing.assert_allclose(dataset.samples.numpy(), table, rtol=1e-6)
    assert dataset.samples.dtype == torch.float32
    assert dataset.labels.tolist() == [0, 1, -1, 1, 0, 0]
    assert dataset.unit_ids.tolist() == ["ann", "bob", "ann", "cy", "cy", "di"]
    assert dataset.holdout.tolist() == [False] * 5 + [True]
    assert not dataset.records_are_units


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 8, 9), (1, 8, 9)),
        ((5, 8, 9, 3), (3, 8, 9)),
        ((5, 3, 8, 9), (3, 8, 9)),
        ((5, 8, 9, 1), (1, 8, 9)),
    ],
)
def test_images_in_any_layout(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    images = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    dataset = load_arrays(write(tmp_path, samples=images, unit_ids=np.arange(5)))
    assert dataset.input_shape == expected
    last_row_first_channel = images[4, -1] if len(shape) == 3 else None
    if shape == (5, 3, 8, 9):
        last_row_first_channel = images[4, 0, -1]
    elif len(shape) == 4:
        last_row_first_channel = images[4, -1, :, 0]
    assert last_row_first_channel is not None
    assert dataset.samples[4, 0, -1].tolist() == last_row_first_channel.tolist()
    assert dataset.unit_ids.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0], [-1, -1, -1]])
def test_labels_never_say_how_many_classes_there_are(tmp_path: Path, labels: list[int]) -> None:
    """Whatever they are: the refusal itself depends on no private label."""
    arrays = {"samples": np.zeros((3, 2)), "labels": np.array(labels)}
    with pytest.raises(UserError, match=r'add classes=\["first", "second", …\] to numpy\.savez'):
        load_arrays(write(tmp_path, **arrays))
    assert load_arrays(write(tmp_path, classes=list("abcd"), **arrays)).classes == tuple("abcd")


def test_no_labels_are_no_labels(tmp_path: Path) -> None:
    dataset = load_arrays(write(tmp_path, samples=np.zeros((3, 2), dtype=np.float32)))
    assert dataset.labels.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.arange(3)}, "it needs `samples`"),
        ({"samples": np.zeros((3, 2)), "label": np.arange(3)}, "it needs `samples`"),
        ({"samples": np.array([[1.0, np.nan]])}, "not finite"),
        ({"samples": np.zeros((3, 4, 4))}, "uint8 images"),
        ({"samples": np.zeros((3, 2, 4, 4), dtype=np.uint8)}, "1 or 3 channels"),
        ({"samples": np.zeros((3, 2)), "labels": np.array([0.0, 1, 2])}, "not integers"),
        (
            {"samples": np.zeros((3, 2)), "labels": np.arange(4), "classes": list("abcd")},
            "4 labels",
        ),
        ({"samples": np.zeros((3, 2)), "labels": np.arange(3), "classes": ["a", "b"]}, "2 classes"),
        (
            {"samples": np.zeros((3, 2)), "labels": np.arange(3), "classes": [0, 1, 2]},
            "not strings",
        ),
        ({"samples": np.zeros((3, 2)), "unit_ids": np.zeros((3, 1), dtype=int)}, "unit_ids"),
        ({"samples": np.zeros((3, 2)), "holdout": np.arange(3)}, "not bool"),
        ({"samples": np.array([[1, "a"]], dtype=object)}, "without pickle"),
    ],
)
def test_mistakes(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_arrays(write(tmp_path, **arrays))


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load_arrays(tmp_path / "nothing.npz")
    other = tmp_path / "table.csv"
    other.write_text("1,2")
    with pytest.raises(UserError, match=r"not a \.npz"):
        load_arrays(other)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(UserError, match="cannot be read"):
        load_arrays(broken)
