"""Answers read in step with the samples, out of memory-mapped files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ktan.answers import AnswerManifest, AnswerStore
from ktan.errors import UserError
from ktan.teacher import AnswerTap

MANIFEST = AnswerManifest(
    "ab" * 16,
    (
        AnswerTap("probabilities", "probabilities", (10,), noise_sd=0.13, temperature=3.0),
        AnswerTap("hint", "hint", (2, 3), noise_sd=0.5),
    ),
)
COUNT = 20


def digests_of(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 32), dtype=np.uint8)


def filled(folder: Path) -> tuple[AnswerStore, np.ndarray, dict[str, np.ndarray]]:
    """A store of 20 samples in requests of 7, with what was put into it."""
    store, digests, random = AnswerStore.open(folder, MANIFEST), digests_of(COUNT), np.random
    given = {
        tap.name: random.default_rng(2).normal(size=(COUNT, *tap.shape)).astype(np.float32)
        for tap in MANIFEST.taps
    }
    for start in range(0, COUNT, 7):
        part = slice(start, start + 7)
        store.begin(f"r{start}", digests[part])
        store.finish(f"r{start}", {name: v[part] for name, v in given.items()}, {"entry": start})
    return store, digests, given


def test_rows_at_any_positions_are_what_was_stored(tmp_path: Path) -> None:
    store, digests, given = filled(tmp_path)
    order = np.random.default_rng(3).permutation(COUNT)
    for opened in (store, AnswerStore.open(tmp_path)):
        rows = opened.rows(digests[order])
        assert list(rows) == ["probabilities", "hint"]
        for name, view in rows.items():
            expected = given[name][order]
            assert (len(view), view.shape, view.dtype) == (COUNT, expected.shape, torch.float32)
            for positions in ([3], [0, 19, 7, 7, -1], list(range(COUNT)), []):
                found = view[torch.tensor(positions, dtype=torch.int64)]
                assert found.dtype == torch.float32
                np.testing.assert_array_equal(
                    found.numpy(), expected[np.array(positions, dtype=np.int64)]
                )
                np.testing.assert_array_equal(
                    view[np.array(positions, dtype=np.int64)].numpy(), found.numpy()
                )
            np.testing.assert_array_equal(view[5:9].numpy(), expected[5:9])


def test_what_is_read_is_a_copy_and_the_store_cannot_be_written_through_it(tmp_path: Path) -> None:
    store, digests, given = filled(tmp_path)
    view = store.rows(digests, ["hint"])["hint"]
    view[torch.arange(4)].zero_()
    np.testing.assert_array_equal(view[:4].numpy(), given["hint"][:4])


def test_wrong_positions_and_missing_answers_are_refused(tmp_path: Path) -> None:
    store, digests, _ = filled(tmp_path)
    view = store.rows(digests, ["hint"])["hint"]
    with pytest.raises(IndexError):
        view[torch.tensor([COUNT])]
    with pytest.raises(TypeError, match="int64"):
        view[3]  # type: ignore[index]
    with pytest.raises(UserError, match="1 of 21 samples have no answer"):
        store.rows(more(digests))
    with pytest.raises(ValueError, match="no taps"):
        store.rows(digests, ["elsewhere"])


def more(digests: np.ndarray) -> np.ndarray:
    """With one sample that was never asked about."""
    return np.concatenate([digests, np.zeros((1, 32), dtype=np.uint8)])
