"""The keyed hash of unit ids by which records are divided, ordered and thinned."""

import hashlib

import numpy as np

from ktan.data.dataset import UnitIds

_BLOCK = 1 << 14
"""Ids that are Python objects at a time."""


def unit_hash(unit_ids: UnitIds, purpose: str) -> np.ndarray:
    """uint64 [n]: BLAKE2b of each id under a key made of `purpose`, its seed included.

    Other purposes give independent orders, so that no stretch of one is a stretch of another.
    """
    key = hashlib.sha256(f"ktan {purpose}".encode()).digest()
    hashes = np.empty(len(unit_ids), dtype="<u8")
    for start in range(0, len(unit_ids), _BLOCK):
        digests = b"".join(
            hashlib.blake2b(str(unit).encode(), digest_size=8, key=key).digest()
            for unit in unit_ids[start : start + _BLOCK].tolist()
        )
        hashes[start : start + _BLOCK] = np.frombuffer(digests, dtype="<u8")
    return hashes


def mixed_order(unit_ids: UnitIds, holdout: np.ndarray) -> np.ndarray:
    """int64 [n]: the training part first; in each part by a hash of the unit id alone.

    Class after class, the last thousand pictures of a part would all show the same thing; no label
    moves anybody. Records of one unit stay in their order.
    """
    hashed = unit_hash(unit_ids, "order of pictures")
    order: np.ndarray = np.lexsort((hashed, holdout))
    return order
