"""Farthest-first traversal, against a plain float64 one and against all subsets."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial.distance import cdist

from ktan.selection import k_centre


def points(count: int, dimensions: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def distances(features: torch.Tensor) -> npt.NDArray[np.float64]:
    between: npt.NDArray[np.float64] = cdist(features.double().numpy(), features.double().numpy())
    return between


def radius(between: npt.NDArray[np.float64], centres: list[int]) -> float:
    """How far the worst sample is from its nearest centre."""
    return float(between[:, centres].min(axis=1).max())


def greedy(between: npt.NDArray[np.float64], centres: list[int], count: int) -> list[int]:
    """Textbook farthest-first in float64: the `count` that follow `centres`."""
    chosen = list(centres)
    while len(chosen) < len(centres) + count:
        chosen.append(int(between[:, chosen].min(axis=1).argmax()))
    return chosen[len(centres) :]


def is_greedy(between: npt.NDArray[np.float64], chosen: list[int]) -> None:
    """Each next centre is as far from those before it as any sample is, within a thousandth."""
    for number in range(1, len(chosen)):
        nearest = between[:, chosen[:number]].min(axis=1)
        assert nearest[chosen[number]] == pytest.approx(nearest.max(), rel=1e-3)


def closest_call(features: torch.Tensor, centres: list[int], count: int) -> float:
    """By how much the farthest sample ever beats the next, of the largest squared norm."""
    between, chosen, call = distances(features) ** 2, list(centres), float("inf")
    for following in greedy(between, centres, count):
        second, first = np.sort(between[:, chosen].min(axis=1))[-2:]
        call = min(call, float(first - second))
        chosen.append(following)
    norms = (features - features.mean(dim=0)).double().square().sum(dim=1)
    return call / float(norms.max())


# A pool of one sample is the plain loop; one of 400 is never left.
@pytest.mark.parametrize("pool", [1, 2, 17, 100, 400])
@pytest.mark.parametrize("kind", ["normal", "clusters", "heavy", "relu"])
def test_chooses_what_the_textbook_greedy_chooses(kind: str, pool: int) -> None:
    features = {
        "normal": points(400, 5),
        "clusters": points(8, 5)[torch.arange(400) % 8] * 5 + points(400, 5, seed=1),
        "heavy": points(400, 4) * points(400, 1, seed=2).exp(),
        "relu": points(400, 16, seed=3).relu(),
    }[kind]
    chosen = k_centre(features, 40, torch.Generator().manual_seed(1), pool=pool).tolist()
    # Twenty times what float32 may confuse, on any processor.
    assert closest_call(features, chosen[:1], 39) > 2e-5
    assert chosen[1:] == greedy(distances(features), chosen[:1], 39)


@pytest.mark.parametrize("pool", [3, 50, 4000])
def test_more_centres_than_one_matrix_product_takes(pool: int) -> None:
    features = points(1500, 8)
    already = torch.arange(0, 1500, 2)
    assert closest_call(features, already.tolist(), 40) > 2e-5
    chosen = k_centre(features, 40, already=already, pool=pool).tolist()
    assert chosen == greedy(distances(features), already.tolist(), 40)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_features_are_measured_in_float32(dtype: torch.dtype) -> None:
    """Autocast or not; as bf16 products, distances would be off by a hundredth."""
    features = (points(600, 32) + 3).relu().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chosen = k_centre(features, 80, torch.Generator().manual_seed(0), pool=64).tolist()
    is_greedy(distances(features), chosen)


def test_covering_radius_is_within_twice_the_best() -> None:
    """Gonzalez 1985, against all subsets, whichever centre is drawn first."""
    for seed in range(3):
        between = distances(points(12, 2, seed))
        subsets = itertools.combinations(range(12), 4)
        best = min(radius(between, list(centres)) for centres in subsets)
        for draw in range(12):
            generator = torch.Generator().manual_seed(draw)
            found = k_centre(points(12, 2, seed), 4, generator, pool=5)
            assert radius(between, found.tolist()) <= 2 * best + 1e-6


def test_covers_rare_clusters_that_chance_misses() -> None:
    features = torch.cat([points(990) * 0.01, points(10, seed=1) * 0.01 + torch.eye(3)[0] * 50])
    chosen = k_centre(features, 2, torch.Generator().manual_seed(0))
    assert (chosen >= 990).any()
    assert (chosen < 990).any()


def test_small_structure_far_from_the_origin_is_seen() -> None:
    """Squared norms of 1e6 would drown squared distances of 1e-2 in float32."""
    features = points(200) * 0.1 + 1000
    chosen = k_centre(features, 30, torch.Generator().manual_seed(0)).tolist()
    is_greedy(distances(features), chosen)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e18])
def test_scale_of_the_features_does_not_matter(scale: float) -> None:
    features = points(60)
    expected = k_centre(features, 15, torch.Generator().manual_seed(0))
    found = k_centre(features * scale, 15, torch.Generator().manual_seed(0))
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("pool", [1, 7, 300])
def test_rounds_are_one_long_run(pool: int) -> None:
    features = points(300, 6)
    whole = k_centre(features, 90, torch.Generator().manual_seed(6), pool=pool)
    assert closest_call(features, whole[:1].tolist(), 89) > 2e-5
    asked = k_centre(features, 20, torch.Generator().manual_seed(6), pool=pool)
    for count in (1, 30, 0, 39):
        more = k_centre(features, count, already=asked, pool=pool)
        asked = torch.cat([asked, more])
    assert asked.tolist() == whole.tolist()


@pytest.mark.parametrize("pool", [1, 5, 100])
@pytest.mark.parametrize("different", [1, 4, 40])
def test_duplicates_come_last_and_once(different: int, pool: int) -> None:
    features = points(different, 4)[torch.arange(100) % different]
    chosen = k_centre(features, 100, torch.Generator().manual_seed(0), pool=pool)
    assert sorted(chosen.tolist()) == list(range(100))
    assert len(set((chosen[:different] % different).tolist())) == different
    again = k_centre(features, 70, already=chosen[:30], pool=pool)
    assert sorted(again.tolist()) == sorted(chosen[30:].tolist())


def test_what_cannot_be_is_refused() -> None:
    features = points(10)
    with pytest.raises(ValueError, match="8 samples wanted, 7 of 10 are left"):
        k_centre(features, 8, already=torch.tensor([1, 2, 3]))
    for strange in (-1, 10):
        with pytest.raises(ValueError, match="10 candidates"):
            k_centre(features, 1, already=torch.tensor([strange]))
    features[3, 1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        k_centre(features, 2)
