"""The pipeline: what enters the noise, what leaves, and that nothing else does."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privacy.accounting import SIGMA
from privacy.noise import DiscreteGaussian
from privacy.release import TapRelease, release


class NoNoise:
    """Draws zeros, and counts them: shows the exact sum behind the noise."""

    name = "none"
    eta = 0.0
    tau = 0.0

    def __init__(self) -> None:
        self.drawn = 0

    def sample(self, count: int) -> np.ndarray:
        self.drawn += count
        return np.zeros(count, dtype=np.int64)


PROBABILITIES = TapRelease("probabilities", "probabilities", 10, 1.0, 37_000, 200)
HINT = TapRelease("hint", "hint", 8, 3.5, 9_000, 200)


def test_published_numbers_of_a_tap() -> None:
    assert PROBABILITIES.charge == 2 * 37_000**2
    assert HINT.charge == 4 * 9_000**2
    assert HINT.noise_sd == pytest.approx(2**20 * 3.5 / (9_000 * 200))
    assert (PROBABILITIES.draws, HINT.draws) == (10, 8)


def test_without_noise_it_is_the_mean_of_the_bounded_answers() -> None:
    rng = np.random.default_rng(0)
    answers = rng.dirichlet(np.ones(10), (200, 7))
    noise = NoNoise()
    result = release(PROBABILITIES, answers, noise)
    assert result.dtype == np.float32
    assert noise.drawn == 70
    # Truncation loses less than one grid step per teacher.
    np.testing.assert_allclose(result, answers.mean(axis=0), atol=1.0 / 37_000)


def test_noise_has_the_published_deviation_and_mean() -> None:
    answers = np.zeros((200, 2_000, 8))
    result = release(HINT, answers, DiscreteGaussian()).astype(np.float64)
    n = result.size
    # Six standard errors of a variance and of a mean.
    assert np.mean(result**2) / HINT.noise_sd**2 == pytest.approx(1.0, abs=6 * np.sqrt(2 / n))
    assert abs(result.mean()) < 6 * HINT.noise_sd / np.sqrt(n)


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(np.float64, (4, 3, 5), elements=st.floats(width=64)),
    hnp.arrays(np.float64, (3, 5), elements=st.floats(width=64)),
    st.integers(0, 3),
    st.sampled_from(["logits", "hint", "probabilities"]),
    st.integers(1, 2**22),
)
def test_replacing_one_teacher_moves_the_sum_by_at_most_the_charge(
    answers: np.ndarray, other: np.ndarray, teacher: int, kind: str, radius: int
) -> None:
    """Adjacent ensembles through the real pipeline, per sample, NaN and infinities included."""
    tap = TapRelease("tap", kind, 5, 1.0, radius, 4)
    adjacent = answers.copy()
    adjacent[teacher] = other
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (exact_sum(tap, values) for values in (answers, adjacent))
    for row in (first - second).tolist():
        assert sum(value**2 for value in row) <= tap.charge


def exact_sum(tap: TapRelease, values: np.ndarray) -> np.ndarray:
    """The integer sum, read back through a noise source that only looks."""
    from privacy.bounding import bound
    from privacy.quantising import quantise

    released = release(tap, values, NoNoise())
    integers = quantise(bound(values, tap.kind, tap.bound), tap.kind, tap.bound, tap.radius)
    total = integers.sum(axis=0)
    scale = tap.bound / (tap.radius * tap.teachers)
    np.testing.assert_array_equal(released, (total * scale).astype(np.float32))
    return total


def test_a_diverged_teacher_answers_zero_and_still_counts() -> None:
    answers = np.full((4, 1, 2), 0.5)
    tap = TapRelease("p", "probabilities", 2, 1.0, 2**20, 4)
    answers[1] = np.nan
    answers[2, 0, 1] = np.inf
    np.testing.assert_allclose(release(tap, answers, NoNoise()), [[0.25, 0.25]], atol=1e-5)


def test_the_order_of_teachers_does_not_show_in_any_bit() -> None:
    """Sums beyond 2²⁴, where a float32 sum would depend on the order and pass the sensitivity."""
    rng = np.random.default_rng(1)
    answers = rng.normal(size=(200, 5, 8)) * 10.0 ** rng.integers(-20, 20, (200, 1, 1))
    tap = TapRelease("hint", "hint", 8, 3.5, 2**26 - 1, 200)
    forwards = release(tap, answers, NoNoise())
    backwards = release(tap, answers[::-1], NoNoise())
    assert forwards.tobytes() == backwards.tobytes()
    exact_sum(tap, answers)


@pytest.mark.parametrize("samples", [1, 20, 21, 41])
def test_each_sample_is_released_alike_beside_any_number_of_others(samples) -> None:
    """Many are bounded and quantised in blocks, here of 20."""
    tap = TapRelease("hint", "hint", 8, 3.5, 9_000, 204)
    rows = np.random.default_rng(0).standard_normal((204, samples, 8))
    rows[:, ::3] *= 100.0
    rows[7, -1] = np.nan
    together = release(tap, rows, NoNoise())
    alone = [release(tap, rows[:, [sample]], NoNoise())[0] for sample in range(samples)]
    assert np.array_equal(together, alone)


def test_a_map_keeps_its_shape() -> None:
    tap = TapRelease("map", "hint", 2 * 3 * 3, 1.0, 1000, 2)
    assert release(tap, np.ones((2, 5, 2, 3, 3)), NoNoise()).shape == (5, 2, 3, 3)
    assert release(tap, np.ones((2, 0, 2, 3, 3)), NoNoise()).shape == (0, 2, 3, 3)


def test_a_free_tap_is_the_teachers_own_finite_answer() -> None:
    tap = TapRelease.free("logits", "logits", 3)
    assert (tap.charge, tap.draws, tap.noise_sd) == (0, 0, 0.0)
    values = np.array([[[1.5, -2.0, 7.0], [np.nan, 0.0, 0.0], [1e300, 0.0, 0.0]]])
    result = release(tap, values, None)
    np.testing.assert_array_equal(result, np.float32([[1.5, -2.0, 7.0], [0, 0, 0], [0, 0, 0]]))


def test_each_setting_is_part_of_the_key_of_a_stored_answer() -> None:
    changed = [
        TapRelease("other", "hint", 8, 3.5, 9_000, 200),
        TapRelease("hint", "logits", 8, 3.5, 9_000, 200),
        TapRelease("hint", "hint", 9, 3.5, 9_000, 200),
        TapRelease("hint", "hint", 8, 3.5000000000000004, 9_000, 200),
        TapRelease("hint", "hint", 8, 3.5, 9_001, 200),
        TapRelease("hint", "hint", 8, 3.5, 9_000, 201),
    ]
    assert len({tap.settings_bytes() for tap in [HINT, *changed]}) == 7
    assert json.loads(HINT.settings_bytes())["sigma"] == SIGMA


def test_wrong_shapes_sources_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \[200"):
        release(HINT, np.zeros((199, 1, 8)), NoNoise())
    with pytest.raises(ValueError, match="8 values"):
        release(HINT, np.zeros((200, 1, 9)), NoNoise())
    with pytest.raises(ValueError, match="noise source"):
        release(HINT, np.zeros((200, 1, 8)), None)

    class FloatNoise(NoNoise):
        def sample(self, count: int) -> np.ndarray:
            return np.zeros(count)

    with pytest.raises(TypeError, match="int64"):
        release(HINT, np.zeros((200, 1, 8)), FloatNoise())
    for bad in (
        {"kind": "scalar"},
        {"dimension": 0},
        {"bound": float("nan")},
        {"radius": -1},
        {"teachers": 0},
        {"radius": 0},
        {"kind": "probabilities"},
        {"name": ""},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - eight different messages
            replace(HINT, **bad)
