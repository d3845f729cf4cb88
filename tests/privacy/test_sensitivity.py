"""The sensitivity that is charged: never exceeded by any input, and attained.

What is searched here is proved in docs/privacy/promise.md, Lemma 1.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accounting import MAX_RADIUS, Kind, charge_units
from privacy.bounding import bound
from privacy.quantising import quantise
from privacy.release import TapRelease, aggregate

KINDS = ("logits", "hint", "probabilities")
RADII = (1, 2, 3, 25, 1000, 2**20, MAX_RADIUS)


def squared_norm(integers: np.ndarray) -> int:
    """Σq² in Python's unbounded integers."""
    return sum(value * value for value in integers.ravel().tolist())


@dataclass(frozen=True)
class Hostile:
    """A row that a broken, poisoned or foreign network may answer; made from a seed."""

    shape: str
    scale: float
    spoiled: float | None
    precision: str
    seed: int

    def row(self, dimension: int) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        row = {
            "normal": lambda: rng.normal(size=dimension),
            "cauchy": lambda: rng.standard_cauchy(dimension),
            "flat": lambda: np.ones(dimension),
            "alternating": lambda: np.where(np.arange(dimension) % 2, -1.0, 1.0),
            "spike": lambda: np.eye(1, dimension, int(rng.integers(dimension)))[0],
            "signed zeros": lambda: np.where(rng.random(dimension) < 0.5, -0.0, 0.0),
            "decades": lambda: (
                rng.choice([-1, 1], dimension) * 10.0 ** rng.integers(-30, 30, dimension)
            ),
            "softmax": lambda: rng.dirichlet(np.full(dimension, 0.1)),
        }[self.shape]()
        with np.errstate(all="ignore"):
            row = row * self.scale
            if self.spoiled is not None:
                row[int(rng.integers(dimension))] = self.spoiled
            if self.precision == "bfloat16":
                bits = row.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
                return bits.view(np.float32)
            return row.astype(self.precision)


SCALES = st.one_of(
    st.sampled_from([0.0, 5e-324, 1e-310, 1e-30, 1e30, 1e300, 1.7e308]),
    st.floats(1.0 - 1e-15, 1.0 + 1e-15),
    st.floats(-1e3, 1e3),
)
HOSTILE = st.builds(
    Hostile,
    shape=st.sampled_from(
        ["normal", "cauchy", "flat", "alternating", "spike", "signed zeros", "decades", "softmax"]
    ),
    scale=SCALES,
    spoiled=st.sampled_from(
        [None, None, np.nan, np.inf, -np.inf, 5e-324, -0.0, 3.4e38, -1.7e308, 1.0]
    ),
    precision=st.sampled_from(["float64", "float32", "float16", "bfloat16"]),
    seed=st.integers(0, 2**32),
)
DIMENSIONS = st.sampled_from([1, 2, 3, 10, 128, 1000, 65_536])


def integers_of(row: np.ndarray, kind: Kind, limit: float, radius: int) -> np.ndarray:
    """One teacher's row through bound and quantise, silently."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return quantise(bound(row[np.newaxis], kind, limit), kind, limit, radius)[0]


@settings(max_examples=250, deadline=None)
@given(HOSTILE, HOSTILE, DIMENSIONS, st.sampled_from(KINDS), st.sampled_from(RADII), SCALES)
def test_no_pair_of_answers_differs_by_more_than_is_charged(
    first: Hostile, second: Hostile, dimension: int, kind: Kind, radius: int, limit: float
) -> None:
    limit = abs(limit) or 1.0
    if kind == "probabilities":
        limit = 1.0
    a, b = (integers_of(one.row(dimension), kind, limit, radius) for one in (first, second))
    for q in (a, b):
        assert squared_norm(q) <= radius**2
        if kind == "probabilities":
            assert q.min() >= 0
            assert sum(q.tolist()) <= radius
    assert squared_norm(a - b) <= charge_units(kind, radius)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(HOSTILE, min_size=1, max_size=3),
    HOSTILE,
    st.sampled_from([1, 3, 200, 1000]),
    st.sampled_from([1, 10, 300]),
    st.sampled_from(KINDS),
    st.sampled_from(RADII),
)
def test_no_pair_of_adjacent_ensembles_differs_by_more_than_is_charged(
    kinds_of_teacher: list[Hostile],
    replaced: Hostile,
    teachers: int,
    dimension: int,
    kind: Kind,
    radius: int,
) -> None:
    """k up to 1000: whatever the others answer, the sum moves by one row's share."""
    rows = [one.row(dimension) for one in kinds_of_teacher]
    ensemble = np.stack([rows[i % len(rows)] for i in range(teachers)])[:, np.newaxis].astype(float)
    adjacent = ensemble.copy()
    adjacent[replaced.seed % teachers, 0] = replaced.row(dimension)
    tap = TapRelease("tap", kind, dimension, 1.0, radius, teachers)
    moved = aggregate(tap, ensemble) - aggregate(tap, adjacent)
    assert squared_norm(moved) <= tap.charge


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dimension", "radius"), [(2, 25), (3, 1000), (30, 2**20), (4, MAX_RADIUS)]
)
def test_hill_climbing_reaches_the_charge_and_does_not_pass_it(
    kind: Kind, dimension: int, radius: int
) -> None:
    """An adversary that sees the integers and climbs: from random pairs, without gradients.

    Its moves are steps of every size, the smallest one unit in the last place, and factors; it
    probes with far, denormal and non-finite values. Where it ends shows that no slack is charged.
    """
    rng = np.random.default_rng(11)
    best = rng.normal(size=(2, dimension))
    reached = -1
    charge = charge_units(kind, radius)

    def squares(pairs: np.ndarray) -> list[int]:
        grid = quantise(bound(pairs, kind, 1.0), kind, 1.0, radius)
        return [squared_norm(first - second) for first, second in grid]

    for _ in range(400):
        steps = 10.0 ** rng.uniform(-17, 1, (32, 1, 1)) * rng.normal(size=(32, 2, dimension))
        factors = np.exp(
            rng.normal(size=(32, 2, dimension)) * rng.choice([0, 1e-15, 1], (32, 1, 1))
        )
        moves = np.clip(best * factors + steps, -1e6, 1e6)
        values = rng.choice([np.nan, np.inf, 1e308, -1e308, 5e-324, 0.0], moves.shape)
        assert max(squares(np.where(rng.random(moves.shape) < 0.2, values, moves))) <= charge
        found = squares(moves)
        assert max(found) <= charge
        if max(found) > reached:
            reached = max(found)
            best = moves[int(np.argmax(found))]
    # Truncation costs a boundary row up to √m steps of R.
    assert reached >= charge * (1.0 - 2.0 * np.sqrt(dimension) / radius - 0.02)


@pytest.mark.parametrize("radius", RADII)
def test_the_charge_is_attained_exactly(radius: int) -> None:
    """2R and √2·R are no slack: opposite unit vectors, and two certain classes, attain them."""
    for kind, first, second in (
        ("hint", [3.5, 0.0], [-3.5, 0.0]),
        ("probabilities", [1.0, 0.0], [0.0, 1.0]),
    ):
        limit = 3.5 if kind == "hint" else 1.0
        tap = TapRelease("tap", kind, 2, limit, radius, 3)
        ensemble = np.zeros((3, 1, 2))
        adjacent = ensemble.copy()
        ensemble[1], adjacent[1] = first, second
        moved = aggregate(tap, ensemble) - aggregate(tap, adjacent)
        assert squared_norm(moved) == tap.charge


def test_probabilities_are_held_by_the_clamp_and_not_by_trust_in_the_network() -> None:
    """Rows that no softmax gives. Unclamped, opposite rows would cost 4R², twice the charge."""
    radius = 10_000
    rows = np.array(
        [[1, 0], [0, 1], [-1, 0], [0, -1], [7, 7], [-1e308, 1e308], [1e308, 1e308], [1, -1]]
    ).astype(float)
    grid = quantise(bound(rows, "probabilities", 1.0), "probabilities", 1.0, radius)
    for a in grid:
        for b in grid:
            assert squared_norm(a - b) <= 2 * radius**2
    # The quantiser alone, as if nothing had been bounded.
    grid = quantise(rows, "probabilities", 1.0, radius)
    assert grid.min() >= 0
    assert grid.sum(axis=1).max() <= radius
    unclamped = quantise(rows[[0, 2]], "hint", 1.0, radius)
    assert squared_norm(unclamped[0] - unclamped[1]) == 4 * radius**2


def test_the_integer_check_sees_one_step_where_a_float_does_not() -> None:
    """R² + 1 at R = 2²⁸ is 2⁵⁶ + 1: as a float it is 2⁵⁶ again."""
    radius = MAX_RADIUS
    assert float(radius**2 + 1) == float(radius**2)
    row = np.array([[1.0, 1.0 / radius]])
    assert squared_norm(quantise(row, "hint", 1.0, radius)) <= radius**2


@pytest.mark.parametrize("kind", ["hint", "probabilities"])
def test_the_integer_check_turns_once_at_most(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows on and around the boundary: the time does not grow with how far they are outside."""
    turns = 0
    truncate = np.trunc

    def counted(values: np.ndarray, **out: np.ndarray) -> np.ndarray:
        nonlocal turns
        turns += 1
        return truncate(values, **out)

    monkeypatch.setattr(np, "trunc", counted)
    for dimension in (2, 1000, 65_536):
        corner = np.eye(1, dimension)[0]
        corner[1] = 1.0 / MAX_RADIUS
        for row in (corner, np.ones(dimension), np.random.default_rng(5).random(dimension)):
            size = row.sum() if kind == "probabilities" else np.linalg.norm(row)
            for beyond in (0.0, 1e-16, 1e-12, 1e-9, 1e-7, 1e-6, 1e9):
                turns = 0
                rows = (row / (1.0 if row is corner else size) * (1.0 + beyond))[np.newaxis]
                quantise(rows, kind, 1.0, MAX_RADIUS)
                assert turns <= 3
