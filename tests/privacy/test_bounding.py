"""Bounding: always inside, never a warning, rows independent."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privacy.bounding import bound, finite_rows

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=64)
ROWS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=12),
    elements=ANY_FLOAT,
)
KINDS = st.sampled_from(["logits", "hint", "probabilities"])


@settings(max_examples=400, deadline=None)
@given(ROWS, KINDS, st.floats(1e-6, 1e6))
def test_every_row_ends_inside_and_silently(values: np.ndarray, kind: str, limit: float) -> None:
    limit = 1.0 if kind == "probabilities" else limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = bound(values, kind, limit)
    assert rows.dtype == np.float64
    assert rows.shape == values.shape
    assert np.isfinite(rows).all()
    if kind == "probabilities":
        assert (rows >= 0.0).all()
        assert (rows.sum(axis=-1) <= 1.0 + 1e-12).all()
    else:
        assert (np.linalg.norm(rows, axis=-1) <= limit * (1 + 1e-12)).all()
    unusable = ~np.isfinite(values).all(axis=-1)
    assert (rows[unusable] == 0.0).all()


@settings(max_examples=100, deadline=None)
@given(ROWS, KINDS)
def test_a_row_depends_on_itself_alone(values: np.ndarray, kind: str) -> None:
    """Locality: whatever stands in the other rows, bit for bit."""
    alone = bound(values[:1], kind, 1.0)
    together = bound(values, kind, 1.0)[:1]
    assert alone.tobytes() == together.tobytes()


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float64, (3, 5), elements=st.floats(-0.1, 0.1)))
def test_rows_inside_are_left_alone(values: np.ndarray) -> None:
    np.testing.assert_allclose(bound(values, "hint", 10.0), values, rtol=1e-15, atol=0.0)
    centred = values - values.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(bound(values, "logits", 10.0), centred, atol=1e-16)
    inside = np.abs(values)
    np.testing.assert_array_equal(bound(inside, "probabilities", 1.0), inside)


def test_clipping_keeps_the_direction_of_huge_and_denormal_rows() -> None:
    for scale in (4e307, 1.0, 1e-308, 5e-324):
        clipped = bound(np.array([[3.0, 4.0]]) * scale, "hint", min(1.0, scale))
        if scale >= 1.0:
            np.testing.assert_allclose(clipped, [[0.6, 0.8]], rtol=1e-15)
        else:
            assert (np.linalg.norm(clipped) <= scale * (1 + 1e-9)).all()


def test_logits_have_mean_zero() -> None:
    logits = np.array([[1e300, -1e300, 5e299], [3.0, 1.0, 2.0]])
    rows = bound(logits, "logits", 2.0)
    np.testing.assert_allclose(rows.mean(axis=-1), 0.0, atol=1e-15)
    assert np.linalg.norm(rows[0]) == pytest.approx(2.0)
    np.testing.assert_allclose(rows[1], [1.0, -1.0, 0.0])


def test_a_float32_network_and_a_bad_row() -> None:
    values = np.array([[1.0, np.nan], [np.inf, 0.0], [0.25, 0.5]], dtype=np.float32)
    np.testing.assert_array_equal(finite_rows(values), [[0, 0], [0, 0], [0.25, 0.5]])


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="bound"):
        bound(np.zeros((1, 2)), "hint", 0.0)
    with pytest.raises(ValueError, match="probabilities"):
        bound(np.zeros((1, 2)), "probabilities", 2.0)
