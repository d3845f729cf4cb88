"""Noise that was used before, planted in right noise in each way a service could serve it again.

Seeded here: nothing of this is a service's noise.
"""

import numpy as np
import pytest

from privacy.accounting import SIGMA
from privacy.audit.mechanism.noise_reuse import repeated_noise

STEP = 1.0 / SIGMA
"""A step of the grid, in standard deviations."""


def integers(seed, *shape):
    return np.rint(np.random.default_rng(seed).normal(size=shape) * SIGMA) / SIGMA


@pytest.fixture
def right():
    return {"hint": integers(1, 8192, 5), "logits": integers(2, 8192, 3)}


def test_right_noise_passes_and_the_sample_compared_is_stated(right):
    other = {"probabilities": integers(3, 100_000, 8)}
    check = repeated_noise([right, other], answered=10**7)
    assert (check.figure, check.holds) == (0.0, True)
    assert "865,536 of 10,000,000" in check.detail


def test_a_single_row_of_four_is_found_wherever_it_comes_again(right):
    other = integers(3, 1000, 4)
    other[17] = right["hint"][4000, :4]
    other[900] = other[3]
    check = repeated_noise([right, {"probabilities": other}])
    assert (check.figure, check.holds) == (8.0, False)


@pytest.mark.parametrize(
    "again",
    [
        lambda noise: noise,
        lambda noise: noise[::-1],
        lambda noise: np.roll(noise, 1),
        lambda noise: np.roll(noise[::-1], 7),
    ],
    ids=["as it was", "reversed", "shifted by one", "reversed and shifted"],
)
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_a_request_served_the_noise_of_another_is_found(right, again, width):
    """From a tap of five values into one of any width, over the borders of its rows."""
    noise = again(right["hint"][3000:3030].reshape(-1))
    other = integers(4, 2000, width)
    other.reshape(-1)[300:450] = noise
    check = repeated_noise([right, {"probabilities": other}])
    # Where the roll joins both ends, up to a run's length is new.
    assert 150 - 2 * 5 <= check.figure <= 150 + 5
    assert not check.holds


def test_noise_is_known_again_under_means_that_are_off_by_some_steps(right):
    """Known means are good to a grid step a teacher: 40 steps and a rounded answer here."""
    offsets = np.random.default_rng(5).uniform(0, 40, size=(100, 5)) * STEP
    moved = np.float32(right["hint"][:100] + offsets).astype(np.float64)
    check = repeated_noise([right, {"hint": integers(6, 50, 5)}, {"hint": moved}])
    # Each value crosses into the next bin with probability 20/256: of 495 runs 303 stay, and
    # cover more than half of the values in any case that is not one in a million.
    assert 250 <= check.figure <= 500


def test_taps_drawn_side_by_side_for_one_sample_are_followed_too():
    """Each tap alone has two values of each sample: only side by side are there runs."""
    values = integers(7, 600, 6)
    values[400:500] = np.roll(values[100:200].reshape(-1), 1).reshape(100, 6)
    check = repeated_noise([{"a": values[:, :2], "b": values[:, 2:4], "c": values[:, 4:]}])
    assert 590 <= check.figure <= 601


def test_two_services_that_draw_the_same_are_found_in_every_value():
    values = integers(8, 500, 4)
    world = {"hint.a": values[:, :2], "hint.b": values[:, 2:]}
    assert repeated_noise([world]).figure == 0
    assert repeated_noise([world, world]).figure == 2000


def test_a_run_is_not_its_own_repetition():
    """A palindrome is the mirror image of itself, and so are runs that overlap within it."""
    values = integers(9, 1000)
    values[500:520] = np.r_[values[500:510], values[500:510][::-1]]
    check = repeated_noise([{"hint": values[:505].reshape(-1, 5)}])
    assert check.figure == 0
    near = np.r_[values[:500], values[500:503], values[502::-1][:3], values[600:604]]
    assert repeated_noise([{"hint": near.reshape(-1, 5)}]).figure == 0


def test_no_noise_at_all_and_no_number_are_reported_and_not_crashed_on():
    assert repeated_noise([{"hint": np.zeros((1000, 4))}]).figure >= 3990
    assert repeated_noise([{"hint": np.full((1000, 4), np.nan)}]).figure >= 3990
    assert repeated_noise([{"hint": np.zeros((1, 3))}]) is None


def test_more_than_is_compared_is_cut_to_a_sample(right, monkeypatch):
    monkeypatch.setattr("privacy.audit.mechanism.noise_reuse._COMPARED", 6000)
    check = repeated_noise([right, right])
    assert "6,000 of 131,072" in check.detail
    assert check.figure == 3000
