"""Arrays to tensor messages and back: name, dtype, shape, raw row-major little-endian bytes.

The same shape as the tensors of the Open Inference Protocol.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from protos import teacher_pb2

MAX_DIMENSIONS: Final = 8

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
    """`array` as a message. Raises TensorError for a dtype that the wire does not carry."""
    number = data_type(array.dtype)
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
        raise TensorError(f"tensor '{message.name}': unknown dtype {message.dtype}")
    shape = tuple(message.shape)
    if len(shape) > MAX_DIMENSIONS:
        raise TensorError(
            f"tensor '{message.name}': {len(shape)} dimensions, at most {MAX_DIMENSIONS}"
        )
    if any(size < 0 for size in shape):
        raise TensorError(f"tensor '{message.name}': negative size in shape {list(shape)}")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(message.data):
        raise TensorError(
            f"tensor '{message.name}': shape {list(shape)} of {dtype.name} needs {expected} bytes, "
            f"got {len(message.data)}"
        )
    return np.frombuffer(message.data, dtype=dtype).reshape(shape)
