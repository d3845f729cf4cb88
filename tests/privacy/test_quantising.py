"""The integers on which the sensitivity is proved. Inputs here are hostile on purpose."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privacy.accounting import MAX_RADIUS, charge_units
from privacy.bounding import bound
from privacy.quantising import quantise

HOSTILE = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=64),
    st.sampled_from([0.0, -0.0, 5e-324, 1e-308, 1.7e308, -1.7e308, 0.5, 1.0, -1.0, np.nan]),
)
ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=HOSTILE)
RADII = st.one_of(st.integers(1, 300), st.integers(1, MAX_RADIUS))
BALL = st.sampled_from(["logits", "hint"])


def squares(integers: np.ndarray) -> list[int]:
    """Σq² in Python's unbounded integers, beside numpy's."""
    return [sum(int(q) ** 2 for q in row) for row in integers.reshape(-1, integers.shape[-1])]


@settings(max_examples=400, deadline=None)
@given(ROWS, BALL, st.floats(1e-300, 1e300), RADII, st.booleans())
def test_the_norm_never_exceeds_the_radius(
    values: np.ndarray, kind: str, limit: float, radius: int, bounded: bool
) -> None:
    """Whether or not the rows were bounded first: the integer check stands alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = bound(values, kind, limit) if bounded else values
        integers = quantise(rows, kind, limit, radius)
    assert integers.dtype == np.int64
    assert all(square <= radius**2 for square in squares(integers))


@settings(max_examples=400, deadline=None)
@given(ROWS, RADII, st.booleans())
def test_probabilities_stay_in_the_simplex(values: np.ndarray, radius: int, bounded: bool) -> None:
    rows = bound(values, "probabilities", 1.0) if bounded else values
    integers = quantise(rows, "probabilities", 1.0, radius)
    assert (integers >= 0).all()
    assert all(sum(int(q) for q in row) <= radius for row in integers)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda m: st.tuples(*[hnp.arrays(np.float64, (1, m), elements=HOSTILE)] * 2)
    ),
    st.sampled_from(["logits", "hint", "probabilities"]),
    RADII,
)
def test_two_answers_differ_by_at_most_what_is_charged(
    pair: tuple[np.ndarray, np.ndarray], kind: str, radius: int
) -> None:
    first, second = (quantise(bound(row, kind, 1.0), kind, 1.0, radius) for row in pair)
    assert squares(first - second)[0] <= charge_units(kind, radius)


@pytest.mark.parametrize("kind", ["logits", "hint", "probabilities"])
def test_the_worst_pair_reaches_what_is_charged(kind: str) -> None:
    """The charge is not only an upper bound: opposite answers attain it."""
    radius, m = 1000, 2
    worst = np.array([[1.0, 0.0], [0.0, 1.0]])
    if kind != "probabilities":
        worst = np.array([[1.0, -1.0], [-1.0, 1.0]]) / np.sqrt(m)
    a, b = quantise(bound(worst, kind, 1.0), kind, 1.0, radius)
    assert int(((a - b) ** 2).sum()) >= 0.99 * charge_units(kind, radius)


def test_search_for_a_pair_beyond_the_sensitivity_finds_none() -> None:
    """Random search on the boundary, where a rounding error would show, dimension 1 to 512."""
    rng = np.random.default_rng(7)
    for dimension in (1, 2, 3, 10, 64, 512):
        for radius in (1, 2, 25, 1000, 2**20, MAX_RADIUS):
            rows = rng.normal(size=(200, dimension))
            rows *= (1.0 + rng.choice([-1e-16, 0.0, 1e-16], (200, 1))) / np.linalg.norm(
                rows, axis=1, keepdims=True
            )
            integers = quantise(bound(rows, "hint", 1.0), "hint", 1.0, radius)
            opposite = quantise(bound(-rows, "hint", 1.0), "hint", 1.0, radius)
            assert max(squares(integers)) <= radius**2
            assert max(squares(integers - opposite)) <= charge_units("hint", radius)


def test_rounding_to_nearest_would_leave_the_ball() -> None:
    """Why truncation: the check of this module is needed for about half of the boundary rows."""
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(2000, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = np.rint(rows * 1000).astype(np.int64)
    over = np.mean([square > 1000**2 for square in squares(nearest)])
    assert 0.3 < over < 0.7
    assert max(squares(quantise(rows, "hint", 1.0, 1000))) <= 1000**2


def test_the_integer_check_stands_alone() -> None:
    """Rows a hair outside the ball, which no float comparison is asked to notice."""
    rng = np.random.default_rng(10)
    rows = rng.normal(size=(500, 30))
    rows *= (1.0 + 5e-7) / np.linalg.norm(rows, axis=1, keepdims=True)
    radius = 2**24
    assert max(squares(np.trunc(rows * radius).astype(np.int64))) > radius**2
    assert max(squares(quantise(rows, "hint", 1.0, radius))) <= radius**2
    shares = rng.dirichlet(np.ones(30), 500) * (1.0 + 5e-7)
    assert quantise(shares, "probabilities", 1.0, radius).sum(axis=1).max() <= radius


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float64, (3, 6), elements=st.floats(-1.0, 1.0)),
    st.sampled_from(["hint", "probabilities"]),
    st.integers(1, 2**24),
)
def test_no_entry_grows(values: np.ndarray, kind: str, radius: int) -> None:
    """Toward zero, entry by entry, as rounding to nearest would not be."""
    rows = bound(values, kind, 1.0)
    integers = quantise(rows, kind, 1.0, radius)
    assert (np.abs(integers) <= np.abs(rows) * radius).all()
    assert (integers * rows >= 0).all()


def test_truncation_loses_less_than_a_step() -> None:
    rng = np.random.default_rng(9)
    rows = bound(rng.normal(size=(50, 20)), "hint", 2.5)
    integers = quantise(rows, "hint", 2.5, 10_000)
    assert np.abs(integers * (2.5 / 10_000) - rows).max() <= 2 * 2.5 / 10_000


def test_no_row_and_wrong_settings() -> None:
    assert quantise(np.zeros((0, 3)), "hint", 1.0, 5).shape == (0, 3)
    for radius in (0, MAX_RADIUS + 1):
        with pytest.raises(ValueError, match="radius"):
            quantise(np.zeros((1, 3)), "hint", 1.0, radius)
    with pytest.raises(ValueError, match="bound"):
        quantise(np.zeros((1, 3)), "hint", np.nan, 5)
