"""Margin and entropy, against values by hand and against SciPy; then margin before k-centre."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax

from ktan.selection import entropy, k_centre, margin, margin_k_centre
from ktan.selection.entropy import shannon_entropy
from ktan.selection.margin import top_two_gap
from ktan.selection.margin_k_centre import kept


def logits(count: int, classes: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=generator) * 3


def test_gap_and_entropy_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.7, 0.1, 0.2]])
    # A constant added to every logit changes nothing.
    found = probabilities.log() + torch.tensor([[0.0], [100.0], [-100.0]])
    assert top_two_gap(found).tolist() == pytest.approx([0.2, 0.0, 0.5], abs=1e-5)
    by_hand = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    assert float(shannon_entropy(found)[0]) == pytest.approx(by_hand, abs=1e-6)
    assert float(shannon_entropy(found)[1]) == pytest.approx(math.log(3), abs=1e-6)


def test_gap_and_entropy_are_scipys_over_all_chunks() -> None:
    some = logits(9000, 4)
    probabilities = softmax(some.double().numpy(), axis=1)
    ordered = np.sort(probabilities, axis=1)
    np.testing.assert_allclose(top_two_gap(some), ordered[:, -1] - ordered[:, -2], atol=1e-12)
    expected = scipy.stats.entropy(probabilities, axis=1)
    np.testing.assert_allclose(shannon_entropy(some), expected, atol=1e-12)


def test_the_least_sure_come_first_by_each_measure() -> None:
    # Two classes nearly alike; the mass spread over all; sure; surer than float32 can tell.
    some = torch.tensor(
        [[4.0, 3.9, -9, -9], [1.0, 0.5, 0.4, 0.3], [30.0, 0, 0, 0], [33.0, 0, 0, 0]]
    )
    assert margin(some, 4).tolist() == [0, 1, 2, 3]
    assert entropy(some, 4).tolist() == [1, 0, 2, 3]
    assert margin(some, 2, already=torch.tensor([0])).tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("measure", [margin, entropy])
def test_half_precision_logits_are_compared_in_float64(
    measure: Callable[..., torch.Tensor], dtype: torch.dtype
) -> None:
    some = logits(500).to(dtype)
    found = measure(some, 50).tolist()
    probabilities = np.sort(softmax(some.double().numpy(), axis=1), axis=1)
    scores = (
        probabilities[:, -1] - probabilities[:, -2]
        if measure is margin
        else -scipy.stats.entropy(probabilities, axis=1)
    )
    assert sorted(scores[found]) == pytest.approx(np.sort(scores)[:50])


def test_equal_scores_come_in_random_order() -> None:
    """A student that knows nothing must not ask for the first class of a sorted data set alone."""
    for measure in (margin, entropy):
        found = measure(torch.zeros(1000, 3), 100, torch.Generator().manual_seed(0))
        # Uniform on 0..999: the mean of 100 has an sd of 27.
        assert abs(found.double().mean() - 499.5) < 6 * 27.4
        other = measure(torch.zeros(1000, 3), 100, torch.Generator().manual_seed(1))
        assert found.tolist() != other.tolist()


def test_a_margin_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="two classes"):
        margin(torch.zeros(5, 1), 2)


@pytest.mark.parametrize(
    ("count", "available", "expected"),
    [(300, 45_000, 3_000), (10, 45_000, 100), (5_000, 50_000, 15_811), (50, 50, 50), (1, 3, 1)],
)
def test_ten_times_are_kept_and_both_criteria_have_a_say(
    count: int, available: int, expected: int
) -> None:
    assert kept(count, available) == expected


def test_margin_k_centre_covers_the_smallest_margins_only() -> None:
    """400 samples, 10 wanted: the 63 = √(10·400) least sure, then farthest first among them."""
    some = logits(400)
    features = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    chosen = margin_k_centre(some, features, 10, torch.Generator().manual_seed(2))
    wavering = top_two_gap(some).numpy().argsort()[:63]
    assert set(chosen.tolist()) <= set(wavering.tolist())
    assert len(set(chosen.tolist())) == 10
    among = features[torch.from_numpy(wavering)]
    first = int(np.flatnonzero(wavering == int(chosen[0]))[0])
    between = torch.cdist(among.double(), among.double()).numpy()
    centres = [first]
    for place in chosen[1:].tolist():
        nearest = between[:, centres].min(axis=1)
        expected = int(nearest.argmax())
        assert wavering[expected] == place
        centres.append(expected)


def test_margin_k_centre_continues_from_what_was_asked() -> None:
    some = logits(300)
    features = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    already = torch.arange(0, 60)
    chosen = margin_k_centre(some, features, 240, already=already)
    # All that are left: k-centre alone decides the order.
    assert sorted(chosen.tolist()) == list(range(60, 300))
    assert chosen[:20].tolist() == k_centre(features, 20, already=already).tolist()
    few = margin_k_centre(some, features, 5, already=already, keep=1)
    left = top_two_gap(some).numpy()[60:].argsort()[:5] + 60
    assert sorted(few.tolist()) == sorted(left.tolist())
