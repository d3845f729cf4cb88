import typing

import numpy as np
import pytest
import torch
from torch import Tensor

from ktan.errors import UserError
from ktan.selection import Selection, select

NAMES = typing.get_args(Selection)


def drawn(count: int, width: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def never() -> Tensor:
    raise AssertionError("the student was asked for what this selection does not look at")


def chosen(
    name: Selection,
    count: int,
    already: list[int] | None = None,
    seed: int = 0,
    features: Tensor | None = None,
) -> list[int]:
    """Of 50 samples, 30 of them equal."""
    if features is None:
        features = drawn(50)
        features[10:40] = features[10]
    logits = features @ drawn(3, 4, seed=9)
    return select(
        name,
        count,
        50,
        features=lambda: features,
        logits=lambda: logits,
        already=None if already is None else torch.tensor(already, dtype=torch.int64),
        generator=torch.Generator().manual_seed(seed),
    ).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_selection_is_distinct_reproducible_and_of_the_size_asked(name: Selection) -> None:
    assert sorted(chosen(name, 50)) == list(range(50))
    assert chosen(name, 50, seed=1) == chosen(name, 50, seed=1) != chosen(name, 50, seed=2)
    assert len(set(chosen(name, 10))) == 10
    assert chosen(name, 0) == []


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_is_asked_twice_in_any_round(name: Selection) -> None:
    asked: list[int] = []
    for number, count in enumerate((5, 0, 20, 1, 24)):
        # A generator of its own for each round, and the empty list in the first.
        more = chosen(name, count, asked, seed=number)
        assert len(more) == count
        asked += more
    assert sorted(asked) == list(range(50))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "margin+kcentre"])
def test_rounds_of_one_seed_choose_what_one_long_run_would(name: Selection) -> None:
    # No two samples alike: equal distances may be told apart by rounding alone.
    features = drawn(50)
    whole = chosen(name, 40, features=features)
    assert chosen(name, 10, features=features) == whole[:10]
    asked = chosen(name, 10, [], features=features)
    for count in (5, 25):
        asked += chosen(name, count, asked, features=features)
    assert asked == whole


@pytest.mark.parametrize(
    ("name", "looks_at"),
    [
        ("random", ""),
        ("kcentre", "features"),
        ("margin", "logits"),
        ("entropy", "logits"),
        ("margin+kcentre", "features and logits"),
    ],
)
def test_the_student_is_asked_only_for_what_is_looked_at(name: Selection, looks_at: str) -> None:
    def give() -> Tensor:
        return drawn(20)

    found = select(
        name,
        4,
        20,
        features=give if "features" in looks_at else never,
        logits=give if "logits" in looks_at else never,
    )
    assert len(set(found.tolist())) == 4
    assert select(name, 0, 20, features=never, logits=never).tolist() == []
    if looks_at:
        with pytest.raises(ValueError, match="none were given"):
            select(name, 4, 20)


def test_random_is_uniform() -> None:
    """Each of 20 samples among the first 5 of 4,000 draws: binomial(4000, 1/4), six sd."""
    counts = np.zeros(20)
    for seed in range(4000):
        counts[select("random", 5, 20, generator=torch.Generator().manual_seed(seed))] += 1
    assert np.abs(counts - 1000).max() < 6 * (4000 * 0.25 * 0.75) ** 0.5


def test_users_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"11 queries asked for, 10 unlabelled .* there; lower"):
        select("random", 11, 10)
    with pytest.raises(UserError, match=r"10 unlabelled .* there, 3 of them asked before; lower"):
        select("random", 8, 10, already=torch.tensor([1, 2, 2, 3]))
    with pytest.raises(UserError, match=r"choose random, margin, .* or margin"):
        select("best", 1, 10)  # type: ignore[arg-type]
    diverged = torch.full((10, 2), float("nan"))
    for name in ("kcentre", "margin", "entropy", "margin+kcentre"):
        with pytest.raises(UserError, match="not finite"):
            select(name, 3, 10, features=lambda: diverged, logits=lambda: diverged)
    with pytest.raises(ValueError, match="features of 9 samples for 10"):
        select("kcentre", 3, 10, features=lambda: drawn(9))
