"""Bounding one teacher's answer, row by row, in float64.

The bound here is the intended one; what the proof rests on is the integer check that follows it
(privacy/quantising.py). No input raises, warns or logs: a row that cannot be used becomes zero, and
is released and charged like any other (DESIGN: "k never changes").
"""

import numpy as np
import numpy.typing as npt

from privacy.accounting import Kind

Array = npt.NDArray[np.float64]


def bound(values: npt.ArrayLike, kind: Kind, bound: float) -> Array:
    """Bring every row of `values` into the set that its kind promises.

    values: [..., m], any float type; rows lie along the last axis.
    kind: "logits" are centred by their own mean and clipped to L2 norm `bound`; "probabilities"
        are clamped to p ≥ 0 and scaled to Σp ≤ 1; a "hint" and all kinds that are derived from
        features are clipped to L2 norm `bound`.
    bound: B > 0; exactly 1 for probabilities.

    Returns float64 [..., m], all finite. A row with a non-finite entry becomes the zero row.
    """
    if not (np.isfinite(bound) and bound > 0.0):
        raise ValueError(f"bound must be finite and above 0, not {bound}")
    if kind == "probabilities" and bound != 1.0:
        raise ValueError(f"probabilities are bounded by 1, not {bound}")
    # A warning would depend on private data, hence errstate around everything.
    with np.errstate(all="ignore"):
        rows = _finite_rows(values)
        if kind == "probabilities":
            return _to_simplex_cone(rows)
        return _to_ball(rows, bound, centred=kind == "logits")


def finite_rows(values: npt.ArrayLike) -> Array:
    """float64 copy of `values` [..., m] in which each row with a non-finite entry is zero."""
    with np.errstate(all="ignore"):
        return _finite_rows(values)


def _finite_rows(values: npt.ArrayLike) -> Array:
    rows = np.array(values, dtype=np.float64)
    usable = np.isfinite(rows).all(axis=-1)
    if not usable.all():
        rows[~usable] = 0.0
    return rows


def _to_ball(rows: Array, bound: float, *, centred: bool) -> Array:
    # Scaling by the largest entry first: squares and sums of huge or denormal entries stay exact
    # enough, where a plain norm would be inf or 0.
    largest = np.maximum(
        rows.max(axis=-1, keepdims=True, initial=0.0),
        -rows.min(axis=-1, keepdims=True, initial=0.0),
    )
    unit = np.divide(rows, np.where(largest > 0.0, largest, 1.0), out=rows)
    if centred:
        unit -= unit.mean(axis=-1, keepdims=True)
    norm = np.sqrt(np.square(unit).sum(axis=-1, keepdims=True))
    outside = (largest * norm > bound)[..., 0]
    bounded: Array = unit * largest
    if outside.any():
        # A row of zeros is inside.
        bounded[outside] = unit[outside] / norm[outside] * bound
    return bounded


def _to_simplex_cone(rows: Array) -> Array:
    positive = np.maximum(rows, 0.0, out=rows)
    largest = positive.max(axis=-1, keepdims=True, initial=0.0)
    unit = positive / np.where(largest > 0.0, largest, 1.0)
    total = unit.sum(axis=-1, keepdims=True)
    outside = (largest * total > 1.0)[..., 0]
    if outside.any():
        positive[outside] = unit[outside] / total[outside]
    return positive
