"""One door to all data sets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ktan.data import Dataset, DataSource
from ktan.errors import UserError


def test_fake_has_a_holdout_and_can_be_learnt(tmp_path: Path) -> None:
    dataset = DataSource("fake", tmp_path, size=500).load()
    assert dataset.samples.shape == (500, 1, 28, 28)
    assert int(dataset.holdout.sum()) == 100
    assert torch.equal(dataset.samples, DataSource("fake", tmp_path, size=500).load().samples)
    # The mean picture of each class, from the training part, tells the held-out ones apart.
    flat, held = dataset.samples.flatten(1).float(), dataset.holdout
    means = torch.stack([flat[~held & (dataset.labels == label)].mean(0) for label in range(10)])
    assert (torch.cdist(flat[held], means).argmin(1) == dataset.labels[held]).float().mean() > 0.95
    assert not any(tmp_path.iterdir())


def test_glyphs_of_any_size(tmp_path: Path) -> None:
    short = DataSource("glyphs", tmp_path, size=30).load()
    assert len(short) == 30
    assert short.id == DataSource("glyphs", tmp_path, size=40).load().id


def test_where_data_lie_is_known_before_they_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", samples=np.zeros((4, 2)))
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "cat" / "one.png")
    names = ("fake", "glyphs", f"arrays:{tmp_path}/mine.npz", f"imagefolder:{tmp_path}/pictures")
    for name in names:
        source = DataSource(name, tmp_path / "root", size=1)
        before = source.location
        assert before == source.load().location


def test_a_part_of_ones_own_arrays(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    held = np.arange(10) >= 5
    np.savez(path, samples=np.arange(20.0).reshape(10, 2), holdout=held)
    whole = DataSource(f"arrays:{path}").load()
    part = DataSource(f"arrays:{path}", size=4).load()
    assert isinstance(part, Dataset)
    assert len(part) == 4
    assert int(part.holdout.sum()) == 2
    assert torch.equal(part.samples, whole.samples[part.unit_ids])
    assert part.id == whole.id
    assert part.location == whole.location
    assert len(DataSource(f"arrays:{path}", size=400).load()) == 10


def test_a_part_is_chosen_by_unit_ids_alone(tmp_path: Path) -> None:
    path, generator = tmp_path / "mine.npz", np.random.default_rng(0)
    chosen = []
    for order in (np.arange(1000), generator.permutation(1000)):
        np.savez(path, samples=generator.normal(size=(1000, 2)), unit_ids=order)
        chosen.append(set(DataSource(f"arrays:{path}", size=300).load().unit_ids.tolist()))
        more = DataSource(f"arrays:{path}", size=400).load().unit_ids.tolist()
        assert chosen[-1] < set(more)
    # Neither what stands behind the ids nor its order in the file has a say in it.
    assert chosen[0] == chosen[1]
    assert chosen[0] != set(range(300))


def test_a_part_is_counted_in_units(tmp_path: Path) -> None:
    path, ids = tmp_path / "mine.npz", np.repeat(np.arange(100), 3)
    held = ids >= 80
    chosen = []
    for more in (0, 200):
        longer = np.concatenate([ids, np.full(more, 7)])
        marks = np.concatenate([held, np.zeros(more, dtype=bool)])
        np.savez(path, samples=np.zeros((len(longer), 2)), unit_ids=longer, holdout=marks)
        part = DataSource(f"arrays:{path}", size=50).load()
        chosen.append(set(part.unit_ids.tolist()))
        assert len(chosen[-1]) == 50
        assert sum(unit >= 80 for unit in chosen[-1]) == 10
        assert len(part) == int(np.isin(longer, list(chosen[-1])).sum())
    assert chosen[0] == chosen[1]


def test_only_public_benchmarks_count_as_published(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", samples=np.zeros((2, 2)))
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "pets" / "cat" / "0.png")
    own = [f"arrays:{tmp_path / 'mine.npz'}", f"imagefolder:{tmp_path / 'pets'}"]
    for name, published in [("fake", True), ("glyphs", True), (own[0], False), (own[1], False)]:
        assert DataSource(name, tmp_path, size=1).load().published is published


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataSource("minst"), "no data set is called 'minst'; there are glyphs, mnist"),
        (DataSource("glyphs:x"), "no data set is called"),
        (DataSource("arrays"), "needs a path"),
        (DataSource("imagefolder:"), "needs a path"),
        (DataSource("fake", size=0), "--size is 0"),
    ],
)
def test_mistakes(source: DataSource, message: str) -> None:
    with pytest.raises(UserError, match=message):
        source.load()
