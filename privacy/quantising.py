"""From bounded floats to the integer vectors on which the sensitivity is proved.

The grid step is B/R. Truncation toward zero never grows a norm in exact arithmetic; what rounding
may still have added is removed by a check on the integers themselves. Hence, for *every* input:

    logits, hint:    Σ qᵢ² ≤ R²;              two such vectors differ by at most 2R;
    probabilities:   qᵢ ≥ 0 and Σ qᵢ ≤ R;     two such vectors differ by at most √2·R.

Rounding to nearest would push about half of the rows on the boundary out of the ball.
"""

import numpy as np
import numpy.typing as npt

from privacy.accounting import MAX_RADIUS, Kind

Integers = npt.NDArray[np.int64]


def quantise(values: npt.NDArray[np.float64], kind: Kind, bound: float, radius: int) -> Integers:
    """Integer grid points of `values`, inside the set of radius `radius` whatever the input.

    values: float64 [..., m], bounded by `bounding.bound` with the same `kind` and `bound`.
    radius: R ≥ 1, at most MAX_RADIUS.

    Returns int64 [..., m]. A row with a non-finite entry becomes the zero row.
    """
    if not 1 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius must lie in [1, {MAX_RADIUS}], not {radius}")
    if not (np.isfinite(bound) and bound > 0.0):
        raise ValueError(f"bound must be finite and above 0, not {bound}")
    with np.errstate(all="ignore"):
        usable = np.isfinite(values).all(axis=-1, keepdims=True)
        # Clipping first keeps the product finite and every entry within int64.
        clipped = np.clip(np.where(usable, values, 0.0), -bound, bound)
        steps = np.clip(clipped / bound * radius, -radius, radius)
        if kind == "probabilities":
            return _within(np.maximum(steps, 0.0), radius, power=1)
        return _within(steps, radius, power=2)


def _within(steps: npt.NDArray[np.float64], radius: int, power: int) -> Integers:
    """Truncate `steps` to integers with Σ|q|^power ≤ radius^power, row by row."""
    grid = np.trunc(steps)
    norm = (np.abs(grid) ** power).sum(axis=-1, keepdims=True) ** (1.0 / power)
    # Rows that were not bounded at all are brought near the limit while still floating point, so
    # that the integer sum below cannot overflow.
    far = norm > radius * (1.0 + 1e-6)
    grid = np.where(far, np.trunc(grid * (radius / np.where(far, norm, 1.0))), grid)
    integers = grid.astype(np.int64)
    over = _exceeds(integers, radius, power)
    while over.any():
        rows = integers[over]
        largest = np.abs(rows).argmax(axis=-1)[:, np.newaxis]
        entry = np.take_along_axis(rows, largest, axis=-1)
        np.put_along_axis(rows, largest, entry - np.sign(entry), axis=-1)
        integers[over] = rows
        over = _exceeds(integers, radius, power)
    return integers


def _exceeds(integers: Integers, radius: int, power: int) -> npt.NDArray[np.bool_]:
    size: Integers = (np.abs(integers) ** power).sum(axis=-1)
    exceeds: npt.NDArray[np.bool_] = size > radius**power
    return exceeds
