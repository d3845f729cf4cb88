"""Parts and shards are disjoint, whole by unit, repeatable, and a function of ids only."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ktan.data.dataset import Dataset, UnitIds
from ktan.data.split import Split, SplitRecipe, shards, split
from ktan.errors import UserError


def records(
    unit_ids: UnitIds, holdout: np.ndarray | None = None, seed: int = 0, published: bool = False
) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    count = len(unit_ids)
    return Dataset(
        name="records",
        classes=("a", "b", "c"),
        samples=torch.randn(count, 3, generator=generator),
        labels=torch.randint(3, (count,), generator=generator),
        unit_ids=unit_ids,
        holdout=torch.from_numpy(np.zeros(count, bool) if holdout is None else holdout),
        location=Path("records"),
        published=published,
    )


def parts(result: Split) -> list[np.ndarray]:
    return [result.private, result.labelled, result.unlabelled, result.test]


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.integers(0, 40), min_size=30, max_size=120),
    seed=st.integers(0, 9),
    public=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
)
def test_parts_are_disjoint_and_whole_by_unit(
    units: list[int], seed: int, public: tuple[int, int, int]
) -> None:
    unit_ids = np.array(units)
    there = len(set(units))
    recipe = SplitRecipe(seed, "hash", None, *public)
    if sum(public) > there:
        with pytest.raises(UserError, match="asks for"):
            split(records(unit_ids), recipe)
        return
    result = split(records(unit_ids), recipe)
    together = np.concatenate(parts(result))
    assert sorted(together) == list(range(len(units)))
    owners = [set(unit_ids[part].tolist()) for part in parts(result)]
    assert [len(owner) for owner in owners[1:]] == list(public)
    assert sum(len(owner) for owner in owners) == there
    assert all((np.diff(part) > 0).all() for part in parts(result))


def test_content_moves_nobody() -> None:
    recipe = SplitRecipe(seed=3, private=50, labelled=10, unlabelled=20, test=15)
    ids = np.array([f"person-{number}" for number in range(100)])
    first, second = split(records(ids, seed=0), recipe), split(records(ids, seed=1), recipe)
    for one, other in zip(parts(first), parts(second), strict=True):
        assert np.array_equal(one, other)


def test_order_of_records_moves_nobody() -> None:
    recipe = SplitRecipe(seed=3, labelled=10, unlabelled=20, test=15)
    ids = np.arange(100)
    shuffled = np.random.default_rng(0).permutation(ids)
    first, second = split(records(ids), recipe), split(records(shuffled), recipe)
    for one, other in zip(parts(first), parts(second), strict=True):
        assert set(ids[one]) == set(shuffled[other])


def test_seeds_and_types_of_ids_give_other_splits() -> None:
    dataset = records(np.arange(1000))
    recipe = SplitRecipe(labelled=10, unlabelled=200, test=100)
    one, two = split(dataset, recipe), split(dataset, replace(recipe, seed=1))
    shared = len(np.intersect1d(one.unlabelled, two.unlabelled))
    assert 15 < shared < 75  # 40 expected of two independent draws, sd 5
    assert np.array_equal(one.unlabelled, split(dataset, recipe).unlabelled)


def test_a_public_unit_without_label_is_never_labelled() -> None:
    dataset = records(np.arange(60))
    labels = dataset.labels.clone()
    labels[::2] = -1
    dataset = replace(dataset, labels=labels)
    result = split(dataset, SplitRecipe(labelled=5, unlabelled=30, test=5))
    assert (labels[torch.from_numpy(result.labelled)] >= 0).all()
    assert (labels[torch.from_numpy(result.test)] >= 0).all()
    # Missing labels of private records decide nothing.
    assert np.array_equal(
        result.private,
        split(records(np.arange(60)), SplitRecipe(labelled=5, unlabelled=30, test=5)).private,
    )
    with pytest.raises(UserError, match="with labels"):
        split(dataset, SplitRecipe(labelled=30, unlabelled=0, test=30))


def test_official_parts_keep_the_file_order() -> None:
    holdout = np.arange(100) >= 60
    result = split(records(np.arange(100), holdout), SplitRecipe(0, "official", None, 5, 20, 10))
    assert np.array_equal(result.private, np.arange(60))
    assert np.array_equal(result.labelled, np.arange(60, 65))
    assert np.array_equal(result.unlabelled, np.arange(65, 85))
    assert np.array_equal(result.test, np.arange(90, 100))
    fewer = split(records(np.arange(100), holdout), SplitRecipe(0, "official", 40, 5, 20, 10))
    assert len(fewer.private) == 40
    assert set(fewer.private) < set(range(60))


def test_official_refuses_what_would_leak() -> None:
    holdout = np.arange(100) >= 60
    ids = np.arange(100)
    ids[70] = 3  # one person on both sides
    with pytest.raises(UserError, match="training and in the test"):
        split(records(ids, holdout), SplitRecipe(0, "official", None, 5, 5, 5))
    with pytest.raises(UserError, match="no official test part"):
        split(records(np.arange(100)), SplitRecipe(0, "official", None, 5, 5, 5))
    with pytest.raises(UserError, match="has 40"):
        split(records(np.arange(100), holdout), SplitRecipe(0, "official", None, 5, 30, 6))
    with pytest.raises(UserError, match="has 60"):
        split(records(np.arange(100), holdout), SplitRecipe(0, "official", 61, 5, 5, 5))


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(UserError, match="--test is -1"):
        split(records(np.arange(10)), SplitRecipe(test=-1))


@pytest.mark.parametrize("by", ["hash", "official"])
@pytest.mark.parametrize("missing", ["labelled", "unlabelled", "test"])
def test_no_record_of_ones_own_becomes_public_unasked(
    by: Literal["hash", "official"], missing: str
) -> None:
    dataset = records(np.arange(20000), np.arange(20000) >= 5000)
    with pytest.raises(UserError, match="say how many units are public: --labelled, --unlabelled"):
        split(dataset, SplitRecipe(by=by))
    numbers = {"labelled": 1, "unlabelled": 2, "test": 3}
    del numbers[missing]
    with pytest.raises(UserError, match=f"records lacks --{missing}$"):
        split(dataset, SplitRecipe(0, by, None, **numbers))
    apart = split(dataset, SplitRecipe(by="hash", labelled=0, unlabelled=0, test=0))
    assert np.array_equal(apart.private, np.arange(20000))


@pytest.mark.parametrize("by", ["hash", "official"])
def test_a_published_set_has_default_public_parts(
    by: Literal["hash", "official"], tmp_path: Path
) -> None:
    dataset = records(np.arange(20000), np.arange(20000) >= 5000, published=True)
    result = split(dataset, SplitRecipe(by=by))
    assert result.counts == {
        "private": 8000 if by == "hash" else 5000,
        "labelled": 100,
        "unlabelled": 6000,
        "test": 5900,
    }
    # What is recorded are the numbers, so that saying them is the same split.
    said = SplitRecipe(0, by, None, 100, 6000, 5900)
    assert result.recipe == said
    assert result.to_json() == split(dataset, said).to_json()
    assert result.to_json()["recipe"]["unlabelled"] == 6000
    result.record(tmp_path / "split.json")
    split(dataset, said).check(tmp_path / "split.json")
    split(dataset, SplitRecipe(by=by)).check(tmp_path / "split.json")
    # One number said leaves the others at their defaults.
    assert split(dataset, SplitRecipe(by=by, test=7)).recipe == replace(said, test=7)


def test_a_recorded_split_refuses_another(tmp_path: Path) -> None:
    dataset = records(np.arange(200))
    recipe = SplitRecipe(seed=1, labelled=10, unlabelled=20, test=15)
    path = tmp_path / "split.json"
    split(dataset, recipe).record(path)
    split(dataset, recipe).check(path)
    earlier = json.loads(path.read_text(encoding="utf-8"))
    earlier["counts"]["private"] += 10  # of records, as they were counted once
    path.write_text(json.dumps(earlier), encoding="utf-8")
    split(dataset, recipe).check(path)
    with pytest.raises(UserError, match="recipe"):
        split(dataset, replace(recipe, seed=2)).check(path)
    with pytest.raises(UserError, match="sha256"):
        split(records(np.arange(7, 207)), recipe).check(path)
    with pytest.raises(UserError, match="no recorded split"):
        split(dataset, recipe).check(tmp_path / "missing.json")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not a recorded split"):
        split(dataset, recipe).check(path)


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.integers(0, 30), min_size=1, max_size=90),
    k=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_shards_are_disjoint_whole_and_equal_in_units(units: list[int], k: int, seed: int) -> None:
    unit_ids = np.array(units)
    dealt = shards(unit_ids, k, seed)
    assert len(dealt) == k
    assert sorted(np.concatenate(dealt)) == list(range(len(units)))
    owners = [set(unit_ids[shard].tolist()) for shard in dealt]
    assert sum(map(len, owners)) == len(set(units))
    assert max(map(len, owners)) - min(map(len, owners)) <= 1


def test_records_of_one_unit_move_no_other_unit() -> None:
    ids = np.repeat(np.arange(50), 3)
    longer = np.concatenate([ids, np.full(40, 7)])  # the same unit with more content
    for one, other in zip(shards(ids, 8), shards(longer, 8), strict=True):
        assert set(ids[one]) == set(longer[other])


def test_counts_are_of_units() -> None:
    ids = np.repeat(np.arange(50), 3)
    longer = np.concatenate([ids, np.full(40, 7)])
    recipe = SplitRecipe(labelled=5, unlabelled=10, test=5)
    one, other = split(records(ids), recipe), split(records(longer), recipe)
    assert one.counts == other.counts
    assert one.counts == {"private": 30, "labelled": 5, "unlabelled": 10, "test": 5}


def test_shards_do_not_follow_the_split() -> None:
    """Were both dealt by one hash, a shard would be a stretch of the split's order."""
    ids = np.arange(6000)
    result = split(records(ids), SplitRecipe(labelled=0, unlabelled=3000, test=0))
    inside = set(result.unlabelled.tolist())
    counts = Counter(len(inside & set(shard.tolist())) for shard in shards(ids, 20))
    # 150 of 300 expected; binomial sd 8.7, so 60 away has a chance below 1e-11 for 20 shards.
    assert all(90 < count < 210 for count in counts)


def test_no_shards_no_teachers() -> None:
    with pytest.raises(UserError, match="--teachers"):
        shards(np.arange(3), 0)
