"""The numbers of a soak: fairness, percentiles, growth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

QUANTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}


def fairness(served: Sequence[float]) -> float:
    """Jain's index (Jain, Chiu & Hawe 1984): (Σx)² / (n·Σx²), 1 where all got alike, 1/n where one
    got all. 1 where nobody got anything."""
    squares = sum(x * x for x in served)
    return sum(served) ** 2 / (len(served) * squares) if squares else 1.0


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """By least squares: values a unit of time. 0 for fewer than two moments."""
    moments = np.asarray(times) - np.mean(times) if len(times) else np.zeros(0)
    spread = float(moments @ moments)
    return float(moments @ np.asarray(values)) / spread if spread else 0.0


def slope_error(times: Sequence[float], values: Sequence[float]) -> float:
    """The standard error of `slope`, as if each value strayed from the line by itself; 0 for fewer
    than three moments."""
    if len(times) < 3:
        return 0.0
    moments = np.asarray(times) - np.mean(times)
    strayed = np.asarray(values) - np.mean(values) - slope(times, values) * moments
    spread = float(moments @ moments)
    return float(np.sqrt(strayed @ strayed / (len(times) - 2) / spread)) if spread else 0.0


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """By name, to a tenth; empty for none."""
    if not milliseconds:
        return {}
    found = np.percentile(milliseconds, list(QUANTILES.values()))
    return {name: round(float(value), 1) for name, value in zip(QUANTILES, found, strict=True)}
