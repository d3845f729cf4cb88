"""Kinds that are derived from features are vectors in a ball, like a hint, whatever they hold."""

from typing import get_args

import numpy as np
import pytest

from privacy.accounting import NAMES_CLASSES, Kind
from privacy.release import TapRelease, aggregate

DERIVED = [kind for kind in get_args(Kind) if kind not in NAMES_CLASSES]
RADIUS = 1000


def tap(kind: Kind, teachers: int = 1, dimension: int = 16) -> TapRelease:
    return TapRelease(kind, kind, dimension, bound=2.5, radius=RADIUS, teachers=teachers)


def test_the_derived_kinds_are_those_of_the_taps() -> None:
    assert set(DERIVED) == {"hint", "tsl", "attention", "signs", "products"}


@pytest.mark.parametrize("kind", DERIVED)
def test_no_row_leaves_the_ball_that_is_charged_for(kind: Kind) -> None:
    """Rows of every size and direction, maps among them: Σq² ≤ R² in integers."""
    rows = (
        np.random.default_rng(0).standard_normal((1, 40, 4, 4))
        * np.logspace(-3, 20, 40)[None, :, None, None]
    )
    integers = aggregate(tap(kind), rows)
    squares = np.square(integers.astype(object)).sum(axis=1)
    assert all(squares <= RADIUS**2)
    # And the largest reach it, up to the truncation: nothing is wasted.
    assert squares[-1] > 0.98 * RADIUS**2
    assert tap(kind).charge == 4 * RADIUS**2


@pytest.mark.parametrize("kind", DERIVED)
def test_a_row_with_anything_that_is_not_finite_is_zero(kind: Kind) -> None:
    rows = np.ones((3, 2, 16))
    rows[1, 0, 5] = np.nan
    rows[2, 1, 0] = np.inf
    whole = aggregate(tap(kind), rows[:1])
    np.testing.assert_array_equal(aggregate(tap(kind, 3), rows), 2 * whole)


def test_the_farthest_two_rows_are_as_far_as_is_charged() -> None:
    row = np.zeros((1, 1, 16))
    row[0, 0, 3] = 1e9
    apart = aggregate(tap("attention"), row) - aggregate(tap("attention"), -row)
    assert int(np.square(apart).sum()) == tap("attention").charge
