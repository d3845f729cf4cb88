"""What the synthetic teachers say: a public function of the sample, the world and the teacher.

A sample is uint8 [16] and carries its case, so that one server plays all of them:

    byte 0        case: what the replaced shard's teacher does, by the table below
    bytes 2, 3    axis a, little-endian; taken modulo the tap's dimension m
    bytes 8..15   serial s, little-endian: makes samples different; decides nothing but ALTERNATING

Adjacency replaces the content of one shard: teacher 0 is the only one that knows the *world*, 0 or
1. With the sign w = +1 in world 0 and −1 in world 1, u = e_a for a hint (and for all that derives
from features), u = e_a − e_{a+1} for logits (what survives centring), and for probabilities the
one-hot rows e_a in world 0 and e_{a+1} in world 1, teacher 0 answers, before anything is bounded:

    0 ORDINARY     as teacher 0 of an ordinary ensemble: the same in both worlds
    1 AXIS         1000·B·w·u: clipped to ±B, the two rows farthest apart; and the two one-hot rows
    2 SPREAD       1000·B·w·(+1, −1, +1, …): the same L2 distance in the direction in which another
                   norm than L2 would let far more through; the two one-hot rows
    3 HUGE         1e30·w·u: squares overflow float32; 1e30 times the one-hot rows
    4 NOT_A_NUMBER AXIS in world 0, a row of NaN in world 1
    5 INFINITE     AXIS in world 0, a row of ±inf in world 1
    6 ALTERNATING  AXIS with the sign w·(−1)^s; the one-hot rows change places with it

An ordinary teacher i answers (B/2)·(−1)^i·e_{i mod m}, logits (B/2)·(e_i − e_{i+1}), probabilities
1/m each. The auditor computes the same from this table (docs/privacy/empirical-audit.md).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from teacher_server.public_teacher import PublicTap

SAMPLE_BYTES: Final = 16
LOUD: Final = 1000.0
HUGE: Final = 1e30

Rows = npt.NDArray[np.float32]


class Case(IntEnum):
    """What the replaced shard's teacher does; the numbers are part of the contract."""

    ORDINARY = 0
    AXIS = 1
    SPREAD = 2
    HUGE = 3
    NOT_A_NUMBER = 4
    INFINITE = 5
    ALTERNATING = 6


def ordinary_rows(tap: PublicTap, dimension: int, teachers: int) -> Rows:
    """[k, m]: what each teacher says in an ordinary ensemble, whatever the sample."""
    rows = np.zeros((teachers, dimension), dtype=np.float32)
    index = np.arange(teachers)
    if tap.kind == "probabilities":
        rows += 1.0 / dimension
    elif tap.kind == "logits":
        rows[index, index % dimension] += tap.bound / 2
        rows[index, (index + 1) % dimension] -= tap.bound / 2
    else:
        rows[index, index % dimension] = np.where(index % 2, -tap.bound / 2, tap.bound / 2)
    return rows


def replaced_rows(
    tap: PublicTap, dimension: int, samples: npt.NDArray[np.uint8], world: int
) -> Rows:
    """[n, m]: what teacher 0 says of samples [n, 16] in this world."""
    case = samples[:, 0]
    axis = (samples[:, 2].astype(np.int64) + 256 * samples[:, 3].astype(np.int64)) % dimension
    odd = samples[:, 8] % 2 == 1
    flipped = (case == Case.ALTERNATING) & odd
    other = flipped ^ bool(world)
    place = np.arange(len(samples))

    unit = np.zeros((len(samples), dimension), dtype=np.float64)
    if tap.kind == "probabilities":
        unit[place, np.where(other, axis + 1, axis) % dimension] = 1.0
    else:
        sign = np.where(other, -1.0, 1.0)
        unit[place, axis] += sign
        if tap.kind == "logits":
            unit[place, (axis + 1) % dimension] -= sign
        alternating = np.where(np.arange(dimension) % 2, -1.0, 1.0)
        unit = np.where((case == Case.SPREAD)[:, None], alternating * sign[:, None], unit)
    rows: Rows = (LOUD * tap.bound * unit).astype(np.float32)
    rows[case == Case.HUGE] = HUGE * unit[case == Case.HUGE]
    if world == 1:
        rows[case == Case.NOT_A_NUMBER] = np.nan
        rows[case == Case.INFINITE] = np.where(np.arange(dimension) % 2, -np.inf, np.inf)
    rows[case == Case.ORDINARY] = ordinary_rows(tap, dimension, 1)[0]
    return rows
