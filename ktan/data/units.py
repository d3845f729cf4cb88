"""Which records belong to the same unit, without a second copy of the ids."""

import numpy as np

from ktan.data.dataset import UnitIds

_BLOCK = 1 << 14
"""Ids that are compared at a time."""


def distinct_units(unit_ids: UnitIds) -> tuple[np.ndarray, np.ndarray]:
    """The first record of each unit, int64 [u], units in the order of their ids; and the place of
    each record's unit among these, int64 [n]."""
    order = np.argsort(unit_ids, kind="stable")
    begins = np.ones(len(order), dtype=bool)
    for start in range(0, len(order) - 1, _BLOCK):
        ids = unit_ids[order[start : start + _BLOCK + 1]]
        begins[start + 1 : start + len(ids)] = ids[1:] != ids[:-1]
    unit = np.cumsum(begins)
    unit -= 1
    of_record = np.empty_like(unit)
    of_record[order] = unit
    return order[begins], of_record
