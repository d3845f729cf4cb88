"""Is what is left of the answers, once the known means are taken off, the noise that was claimed?

Residuals are divided by the standard deviation that the charge claims: they should be independent
draws of N(0, 1), up to the grid. Each check looks at all taps and values together and fails for
the right noise with probability at most `alpha`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, kolmogi, ndtr, ndtri

Array = npt.NDArray[np.float64]

_BINS: Final = 256
_IN_A_BIN: Final = 256
"""Values expected in a bin at least: with fewer, Pearson's statistic strays from χ² in the tail."""
_ENOUGH_ROWS: Final = 512
"""A sum of fewer products of normals is not normal so far out as the limits are."""


@dataclass(frozen=True)
class Check:
    """One figure against its limit. `detail` says where, when there is a where."""

    name: str
    figure: float
    limit: float
    unit: str
    detail: str = ""

    @property
    def holds(self) -> bool:
        return self.figure <= self.limit


def check_noise(residuals: Mapping[str, Array], batch: int, alpha: float) -> list[Check]:
    """All checks on one world's residuals, tap → [n, m] in the order in which they were drawn.

    batch: samples a request. Every check is at level `alpha`.
    """
    joined = np.concatenate(list(residuals.values()), axis=1)
    names = [
        f"{name}[{place}]" for name, rows in residuals.items() for place in range(rows.shape[1])
    ]
    checks = [check for name, rows in residuals.items() for check in _law(name, rows, alpha)]
    checks.append(_mean(joined, names, alpha))
    if len(joined) >= _ENOUGH_ROWS:
        if joined.shape[1] > 1:
            checks.append(_between_values(joined, names, alpha))
        checks.append(_between_rows("one sample and the next", joined, 1, alpha))
        if len(joined) >= batch + _ENOUGH_ROWS:
            checks.append(_between_rows("one request and the next", joined, batch, alpha))
    return checks


def _law(name: str, rows: Array, alpha: float) -> list[Check]:
    values = np.sort(rows, axis=None)
    count = len(values)
    ratio = float(np.square(values).mean())
    # The sum of squares is χ² with `count` degrees of freedom; the wider of its two sides.
    upper = float(chdtri(count, alpha / 2.0)) / count - 1.0
    law = ndtr(values)
    steps = np.arange(1, count + 1) / count
    distance = float(max((steps - law).max(), (law - steps).max() + 1.0 / count))
    bins = max(2, min(_BINS, count // _IN_A_BIN))
    counted = np.bincount(np.minimum((law * bins).astype(int), bins - 1), minlength=bins)
    expected = count / bins
    chi = float(np.square(counted - expected).sum() / expected)
    return [
        Check(f"variance of {name}", abs(ratio - 1.0), upper, "of the claimed",
              f"{ratio:.5f} of the claimed variance"),
        Check(f"law of {name}, Kolmogorov-Smirnov", distance, float(kolmogi(alpha)) / count**0.5,
              "of probability"),
        Check(f"law of {name}, χ²", chi, float(chdtri(bins - 1, alpha)), f"on {bins} bins"),
    ]  # fmt: skip


def _mean(rows: Array, names: list[str], alpha: float) -> Check:
    z = np.abs(rows.mean(axis=0)) * np.sqrt(len(rows))
    worst = int(z.argmax())
    limit = _two_sided(alpha / len(z))
    return Check("mean", float(z[worst]), limit, "standard errors", f"worst at {names[worst]}")


def _between_values(rows: Array, names: list[str], alpha: float) -> Check:
    """The largest correlation between two values of one answer, of one tap or of two."""
    count, width = rows.shape
    product = (rows.T @ rows) / np.sqrt(count)
    np.fill_diagonal(product, 0.0)
    worst = np.unravel_index(int(np.abs(product).argmax()), product.shape)
    # For independent normals the normalised sum of products is normal to all purposes.
    limit = _two_sided(alpha / (width * (width - 1) / 2))
    detail = f"worst between {names[worst[0]]} and {names[worst[1]]}"
    return Check(
        "dependence of values", float(abs(product[worst])), limit, "standard errors", detail
    )


def _between_rows(what: str, rows: Array, lag: int, alpha: float) -> Check:
    """Correlation of rows that are `lag` apart, value by value."""
    product = (rows[:-lag] * rows[lag:]).sum() / np.sqrt(rows[lag:].size)
    limit = _two_sided(alpha)
    return Check(f"dependence of {what}", float(abs(product)), limit, "standard errors")


def _two_sided(alpha: float) -> float:
    return float(-ndtri(alpha / 2.0))
