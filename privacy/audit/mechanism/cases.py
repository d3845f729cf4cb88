"""The worst cases of the rehearsal, as an auditor knows them: samples out, known means back.

A second writing of the table in docs/privacy/empirical-audit.md, from which the service's synthetic
teachers are written too. The auditor imports nothing of the service: where the two disagree, the
audit fails, as it must.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.accounting import SIGMA, Kind, charge_units

Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.uint8]

SAMPLE_BYTES: Final = 16


class Case(IntEnum):
    """What the replaced shard's teacher does; the byte 0 of a sample."""

    ORDINARY = 0
    AXIS = 1
    SPREAD = 2
    HUGE = 3
    NOT_A_NUMBER = 4
    INFINITE = 5
    ALTERNATING = 6


@dataclass(frozen=True)
class AuditedTap:
    """One tap of the service, by its published numbers.

    dimension: m. bound: B. teachers: k. charge: of one answer, in units of μ²·2⁴⁰. noise_sd: as
    published, of each value of an answer.
    """

    name: str
    kind: Kind
    dimension: int
    bound: float
    teachers: int
    charge: int
    noise_sd: float

    @property
    def charged_sd(self) -> float:
        """The standard deviation σ·B/(R·k) for which `charge` is the right price."""
        radius = math.sqrt(self.charge / charge_units(self.kind, 1))
        return SIGMA * self.bound / (radius * self.teachers)


def samples(case: npt.ArrayLike, axis: npt.ArrayLike, serial: npt.ArrayLike) -> Samples:
    """uint8 [n, 16]: one sample for each case, axis and serial number, broadcast together."""
    cases, axes, serials = np.broadcast_arrays(case, axis, serial)
    rows = np.zeros((cases.size, SAMPLE_BYTES), dtype=np.uint8)
    rows[:, 0] = cases.reshape(-1)
    rows[:, 2:4] = axes.reshape(-1, 1).astype("<u2").view(np.uint8)
    rows[:, 8:] = serials.reshape(-1, 1).astype("<u8").view(np.uint8)
    return rows


def known_means(tap: AuditedTap, asked: Samples, world: int) -> Array:
    """[n, m]: the answers without noise, up to a grid step a teacher, in the tap's own unit."""
    others = _ordinary(tap, np.arange(1, tap.teachers)).sum(axis=0)
    mean: Array = (_replaced(tap, asked, world) + others) / tap.teachers
    return mean


def _ordinary(tap: AuditedTap, index: npt.NDArray[np.int64]) -> Array:
    """[len(index), m]: what ordinary teachers say, each within its bound already."""
    rows = np.zeros((len(index), tap.dimension))
    place, half = np.arange(len(index)), tap.bound / 2.0
    match tap.kind:
        case "probabilities":
            rows += 1.0 / tap.dimension
        case "logits":
            rows[place, index % tap.dimension] += half
            rows[place, (index + 1) % tap.dimension] -= half
        case _:
            rows[place, index % tap.dimension] = np.where(index % 2, -half, half)
    return rows


def _replaced(tap: AuditedTap, asked: Samples, world: int) -> Array:
    """[n, m]: what is left of the replaced teacher's rows after bounding."""
    case, m = asked[:, 0], tap.dimension
    axis = (asked[:, 2] + 256 * asked[:, 3].astype(np.int64)) % m
    other = ((case == Case.ALTERNATING) & (asked[:, 8] % 2 == 1)) ^ bool(world)
    place = np.arange(len(asked))
    rows = np.zeros((len(asked), m))
    if tap.kind == "probabilities":
        rows[place, np.where(other, axis + 1, axis) % m] = 1.0
    else:
        sign = np.where(other, -1.0, 1.0)
        rows[place, axis] += sign
        if tap.kind == "logits":
            rows[place, (axis + 1) % m] -= sign
        spread = case == Case.SPREAD
        rows[spread] = sign[spread, None] * np.where(np.arange(m) % 2, -1.0, 1.0)
        if tap.kind == "logits":
            rows -= rows.mean(axis=1, keepdims=True)
        norm = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        rows *= tap.bound / np.where(norm > 0.0, norm, 1.0)
    if world == 1:
        rows[(case == Case.NOT_A_NUMBER) | (case == Case.INFINITE)] = 0.0
    ordinary = case == Case.ORDINARY
    rows[ordinary] = _ordinary(tap, np.zeros(1, dtype=np.int64))[0]
    return rows
