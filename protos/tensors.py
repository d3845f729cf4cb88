"""Arrays to tensor messages and back: name, dtype, shape, raw row-major little-endian bytes.

The same shape as the tensors of the Open Inference Protocol.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from protos import teacher_pb2

MAX_DIMENSIONS: Final = 8
MAX_BYTES: Final = 2**31
"""No message is larger. Counted without sizes of 0: NumPy cannot make [0, 2^62] of 8 bytes each."""
_NAME_SHOWN: Final = 40
"""Characters of a name that an error repeats: a status is sent in headers, which are small."""

_DTYPES: Final[dict[teacher_pb2.DataType, np.dtype[Any]]] = {
    teacher_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    teacher_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    teacher_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
}
_ENUMS: Final = {dtype: number for number, dtype in _DTYPES.items()}


class TensorError(ValueError):
    """A tensor message that contradicts itself, or an array that has no place on the wire."""


def data_type(dtype: npt.DTypeLike) -> teacher_pb2.DataType:
    """The wire's name of a NumPy dtype.

    Raises TensorError for a dtype that the wire does not carry.
    """
    wanted = np.dtype(dtype)
    if wanted.byteorder == ">":
        wanted = wanted.newbyteorder("<")
    try:
        return _ENUMS[wanted]
    except KeyError:
        known = ", ".join(d.name for d in _ENUMS)
        raise TensorError(
            f"dtype {np.dtype(dtype).name} is not carried; use one of {known}"
        ) from None


def to_message(name: str, array: npt.NDArray[Any]) -> teacher_pb2.Tensor:
    """`array` as a message.

    Raises TensorError for a dtype or a shape that the wire does not carry.
    """
    number = data_type(array.dtype)
    _check_shape(name, array.shape, array.dtype.itemsize)
    contiguous = np.ascontiguousarray(array, dtype=_DTYPES[number])
    return teacher_pb2.Tensor(
        name=name, dtype=number, shape=array.shape, data=contiguous.tobytes(order="C")
    )


def from_message(message: teacher_pb2.Tensor) -> npt.NDArray[Any]:
    """The array of a message, read-only, sharing the message's bytes.

    Raises TensorError when the dtype is unknown, the shape absurd, or shape and bytes disagree.
    Every check is made before anything is allocated.
    """
    dtype = _DTYPES.get(message.dtype)
    if dtype is None:
        raise TensorError(f"tensor '{shown(message.name)}': unknown dtype {message.dtype}")
    _check_shape(message.name, message.shape, dtype.itemsize)
    shape = tuple(message.shape)
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(message.data):
        raise TensorError(
            f"tensor '{shown(message.name)}': shape {list(shape)} of {dtype.name} needs "
            f"{expected} bytes, got {len(message.data)}"
        )
    return np.frombuffer(message.data, dtype=dtype).reshape(shape)


def shown(name: str) -> str:
    """As much of a name from outside as an error repeats, on one line."""
    cut = name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…"
    return "".join(character if character.isprintable() else "?" for character in cut)


def _check_shape(name: str, shape: Sequence[int], item_bytes: int) -> None:
    if len(shape) > MAX_DIMENSIONS:
        raise TensorError(
            f"tensor '{shown(name)}': {len(shape)} dimensions, at most {MAX_DIMENSIONS}"
        )
    if any(size < 0 for size in shape):
        raise TensorError(f"tensor '{shown(name)}': negative size in shape {list(shape)}")
    if math.prod(max(size, 1) for size in shape) * item_bytes > MAX_BYTES:
        raise TensorError(
            f"tensor '{shown(name)}': shape {list(shape)} is larger than any message ({MAX_BYTES} "
            "bytes)"
        )
