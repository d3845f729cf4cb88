"""The name of a sample by its content: what finds its stored answer again."""

import hashlib
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

_PIECE = 2047
"""Bytes that hashlib takes without letting go of Python, for which a busy service's other threads
would keep it waiting a thousand times longer than a small sample's digest takes."""
_SMALL = 2**14


class ArrayLike(Protocol):
    """A numpy array, or a torch tensor on the CPU."""

    def __array__(self) -> npt.NDArray[Any]: ...


def sample_digests(samples: ArrayLike, rows: ArrayLike | None = None) -> npt.NDArray[np.uint8]:
    """SHA-256 of each sample's dtype, shape and little-endian bytes; uint8 [n, 32].

    `samples`: [n, ...] of any dtype; equal samples have equal digests in any batch. `rows`: int64,
    those samples alone, read one at a time.
    """
    digests = content_digests(samples, rows)
    # A bytearray: whoever gets the array may write to it.
    return np.frombuffer(bytearray(b"".join(digests)), dtype=np.uint8).reshape(-1, 32)


def content_digests(samples: ArrayLike, rows: ArrayLike | None = None) -> list[bytes]:
    """As `sample_digests`, each by itself: 32 bytes."""
    array = np.asarray(samples)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = hashlib.sha256(f"{array.dtype.name}{list(array.shape[1:])}".encode())
    chosen = range(len(array)) if rows is None else np.asarray(rows).tolist()
    digests = []
    for row in chosen:
        digest = head.copy()
        content = array[row].tobytes()
        size = _PIECE if len(content) <= _SMALL else len(content)
        for start in range(0, len(content), size):
            digest.update(content[start : start + size])
        digests.append(digest.digest())
    return digests
