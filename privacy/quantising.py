"""From bounded floats to the integer vectors on which the sensitivity is proved.

The grid step is B/R. Truncation toward zero never grows a norm in exact arithmetic; what rounding
may still have added is removed by a check on the integers themselves. Hence, for *every* input:

    probabilities:     qᵢ ≥ 0 and Σ qᵢ ≤ R;     two such vectors differ by at most √2·R;
    every other kind:  Σ qᵢ² ≤ R²;              two such vectors differ by at most 2R.

Rounding to nearest would push about half of the rows on the boundary out of the ball.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.accounting import MAX_RADIUS, Kind

Integers = npt.NDArray[np.int64]

_SHRINK = 1.0 - 2.0**-30
"""Costs an entry less than a grid step, radii being at most 2²⁸."""


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
        # Clipping first keeps the product finite and every entry within int64.
        steps = np.clip(values, -bound, bound)
        steps[~np.isfinite(values).all(axis=-1)] = 0.0
        steps /= bound
        steps *= radius
        if kind == "probabilities":
            return _within(np.clip(steps, 0.0, radius, out=steps), radius, power=1)
        return _within(np.clip(steps, -radius, radius, out=steps), radius, power=2)


def _within(steps: npt.NDArray[np.float64], radius: int, power: int) -> Integers:
    """Truncate `steps`, which it overwrites, to integers with Σ|q|^power ≤ radius^power by row.

    The last line decides, on integers. It turns at most once: a row that floating point found
    inside has Σ|q|^power ≤ (radius·(1 + m·2⁻⁵²))^power, and one shrinking takes 2⁻³⁰ off. (For
    m > 2²¹, too, it ends: every turn takes at least 1 off every entry that is not zero.)
    """
    grid = np.trunc(steps, out=steps)
    norm = _power(grid, power).sum(axis=-1, keepdims=True) ** (1.0 / power)
    # Rows far outside, which were not bounded at all, are brought in while still floating point:
    # the integer sum cannot overflow, being at most radius^power·(1 + tiny) < 2⁵⁷.
    outside = (norm > radius)[..., 0]
    if outside.any():
        grid[outside] = np.trunc(grid[outside] * (radius * _SHRINK / norm[outside]))
    integers: Integers = grid.astype(np.int64)
    while (over := _power(integers, power).sum(axis=-1) > radius**power).any():
        integers[over] = np.trunc(integers[over] * _SHRINK)
    return integers


def _power(values: npt.NDArray[Any], power: int) -> npt.NDArray[Any]:
    """|values|^power for power 1 or 2, in their own type."""
    result: npt.NDArray[Any] = np.square(values) if power == 2 else np.abs(values)
    return result
