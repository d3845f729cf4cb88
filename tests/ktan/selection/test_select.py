import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from ktan.errors import UserError
from ktan.selection import k_centre, select


def points(count: int, dimensions: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def test_each_next_centre_is_the_farthest_from_all_before() -> None:
    features = points(120)
    chosen = k_centre(features, 30, torch.Generator().manual_seed(1)).tolist()
    distances = cdist(features.double().numpy(), features.double().numpy())
    for number in range(1, 30):
        nearest = distances[:, chosen[:number]].min(axis=1)
        assert nearest[chosen[number]] == pytest.approx(nearest.max(), rel=1e-4)


def test_covering_radius_is_within_twice_the_best() -> None:
    """Gonzalez 1985, against all subsets."""
    features = points(12, 2)
    distances = cdist(features.numpy(), features.numpy())

    def radius(centres: tuple[int, ...] | list[int]) -> float:
        return float(distances[:, list(centres)].min(axis=1).max())

    best = min(radius(centres) for centres in itertools.combinations(range(12), 4))
    for seed in range(12):
        found = k_centre(features, 4, torch.Generator().manual_seed(seed))
        assert radius(found.tolist()) <= 2 * best + 1e-6


def test_covers_rare_clusters_that_chance_misses() -> None:
    features = torch.cat([points(990) * 0.01, points(10, seed=1) * 0.01 + torch.eye(3)[0] * 50])
    chosen = k_centre(features, 2, torch.Generator().manual_seed(0))
    assert (chosen >= 990).any()
    assert (chosen < 990).any()


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e18])
def test_scale_of_the_features_does_not_matter(scale: float) -> None:
    features = points(60)
    expected = k_centre(features, 15, torch.Generator().manual_seed(0))
    found = k_centre(features * scale, 15, torch.Generator().manual_seed(0))
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["random", "kcentre"])
def test_selection_is_distinct_reproducible_and_of_the_size_asked(name: str) -> None:
    features = points(50)
    # Equal samples must not be chosen twice either.
    features[10:40] = features[10]

    def chosen(seed: int, count: int = 50) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return select(name, count, 50, features=lambda: features, generator=generator).tolist()

    assert sorted(chosen(0)) == list(range(50))
    assert chosen(1) == chosen(1) != chosen(2)
    assert chosen(1, 10) == chosen(1)[:10]
    assert chosen(1, 0) == []


def test_random_is_uniform() -> None:
    """Each of 20 samples among the first 5 of 4,000 draws: binomial(4000, 1/4), six sd."""
    counts = np.zeros(20)
    for seed in range(4000):
        counts[select("random", 5, 20, generator=torch.Generator().manual_seed(seed))] += 1
    assert np.abs(counts - 1000).max() < 6 * (4000 * 0.25 * 0.75) ** 0.5


def test_users_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="11 queries asked for, 10 unlabelled"):
        select("random", 11, 10)
    with pytest.raises(UserError, match="choose random or kcentre"):
        select("best", 1, 10)  # type: ignore[arg-type]
