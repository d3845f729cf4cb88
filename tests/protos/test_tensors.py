"""The codec: exact round trips, and every contradiction refused before it costs memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos import teacher_pb2
from protos.tensors import TensorError, from_message, to_message


@given(
    hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.int64, np.float32]),
        shape=hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    )
)
def test_round_trip_is_exact_to_the_bit(array):
    message = teacher_pb2.Tensor.FromString(to_message("x", array).SerializeToString())
    back = from_message(message)
    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


def test_bytes_are_little_endian_and_row_major():
    message = to_message("x", np.asfortranarray(np.array([[1, 2], [3, 4]], dtype=">i8")))
    assert message.data == b"".join(v.to_bytes(8, "little") for v in (1, 2, 3, 4))


def test_non_contiguous_views_are_sent_as_they_look():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(from_message(to_message("x", array)), array)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.bool_, np.int32, "U4", object])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TensorError, match="is not carried"):
        to_message("x", np.zeros(2, dtype=dtype))


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "match"),
    [
        (teacher_pb2.DATA_TYPE_UINT8, [2, 2], b"123", "needs 4 bytes, got 3"),
        (teacher_pb2.DATA_TYPE_FLOAT32, [1], b"12345", "needs 4 bytes, got 5"),
        (teacher_pb2.DATA_TYPE_UNSPECIFIED, [1], b"1", "unknown dtype"),
        (99, [1], b"1", "unknown dtype"),
        (teacher_pb2.DATA_TYPE_UINT8, [-1, -1], b"1", "negative size"),
        (teacher_pb2.DATA_TYPE_UINT8, [2**62, 2**62], b"", "larger than any message"),
        (teacher_pb2.DATA_TYPE_UINT8, [1] * 9, b"1", "9 dimensions"),
        (teacher_pb2.DATA_TYPE_UINT8, [], b"", "needs 1 bytes"),
    ],
)
def test_contradictions_are_refused(dtype, shape, data, match):
    message = teacher_pb2.Tensor(name="x", dtype=dtype, shape=shape, data=data)
    with pytest.raises(TensorError, match=match):
        from_message(message)


def test_a_decoded_tensor_cannot_be_written():
    array = from_message(to_message("x", np.zeros(3, dtype=np.uint8)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
