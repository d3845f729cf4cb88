"""Whatever comes in a tensor's place: an array that the message says, or a TensorError."""

import math
import tracemalloc

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos import teacher_pb2
from protos.tensors import MAX_BYTES, MAX_DIMENSIONS, TensorError, from_message, shown, to_message

ITEM = {
    teacher_pb2.DATA_TYPE_UINT8: 1,
    teacher_pb2.DATA_TYPE_INT64: 8,
    teacher_pb2.DATA_TYPE_FLOAT32: 4,
}
WIRE_DTYPES = st.sampled_from(["u1", "<i8", ">i8", "<f4", ">f4"])
SIZES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**62, 2**63 - 1]),
    st.integers(0, 5),
)
SHAPES = st.lists(SIZES, max_size=12)


def parsed(message):
    return teacher_pb2.Tensor.FromString(message.SerializeToString())


def says(message):
    """Whether dtype, shape and bytes of a message agree, by the protocol's text alone."""
    if message.dtype not in ITEM or len(message.shape) > MAX_DIMENSIONS:
        return False
    if any(size < 0 for size in message.shape):
        return False
    return math.prod(message.shape) * ITEM[message.dtype] == len(message.data)


@given(
    hnp.arrays(
        dtype=WIRE_DTYPES,
        shape=hnp.array_shapes(min_dims=0, max_dims=MAX_DIMENSIONS, min_side=0, max_side=3),
    ),
    st.integers(0, 3),
)
def test_any_layout_and_byte_order_comes_back_to_the_bit(array, view):
    """Transposed, reversed and strided views, of either byte order, empty ones included."""
    if view and array.ndim:
        array = (array.T, array[::-1], array[..., ::2])[view - 1]
    back = from_message(parsed(to_message("x", array)))
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("<")
    assert back.tobytes() == array.astype(back.dtype).tobytes()


@given(st.integers(-(2**31), 2**31 - 1), SHAPES, st.binary(max_size=64))
@example(teacher_pb2.DATA_TYPE_INT64, [0, 2**62], b"")
@example(teacher_pb2.DATA_TYPE_UINT8, [1, 0, 2**62, 2**62], b"")
@example(teacher_pb2.DATA_TYPE_UINT8, [2**32, 2**32], b"")
@example(teacher_pb2.DATA_TYPE_FLOAT32, [2**62, 2**62, 2**62], b"")
def test_any_dtype_shape_and_bytes_are_an_array_or_a_tensor_error(dtype, shape, data):
    message = parsed(teacher_pb2.Tensor(name="x", dtype=dtype, shape=shape, data=data))
    try:
        array = from_message(message)
    except TensorError:
        # All that may be refused beside contradictions is what no message could hold.
        large = math.prod(max(size, 1) for size in shape) * ITEM.get(dtype, 1) > MAX_BYTES
        assert not says(message) or large
    else:
        assert says(message)
        assert (list(array.shape), array.tobytes()) == (shape, data)


@given(
    st.sampled_from(list(ITEM)),
    st.lists(st.integers(0, 6), max_size=4),
    st.integers(-40, 40).filter(bool),
)
def test_every_length_but_the_right_one_is_refused(dtype, shape, off):
    length = math.prod(shape) * ITEM[dtype] + off
    assume(length >= 0)
    with pytest.raises(TensorError, match="needs"):
        from_message(teacher_pb2.Tensor(name="x", dtype=dtype, shape=shape, data=bytes(length)))


@pytest.mark.parametrize("size", [2**31 + 1, 2**40, 2**62, 2**63 - 1])
@pytest.mark.parametrize("others", [[], [0], [2**62], [0, 2**62]])
def test_absurd_sizes_cost_nothing(size, others):
    message = teacher_pb2.Tensor(
        name="x", dtype=teacher_pb2.DATA_TYPE_INT64, shape=[size, *others], data=bytes(8)
    )
    tracemalloc.start()
    try:
        with pytest.raises(TensorError, match="larger than any message"):
            from_message(message)
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()


def check_as_a_request(body):
    try:
        request = teacher_pb2.QueryRequest.FromString(body)
    except DecodeError:
        return
    for tensor in request.samples:
        try:
            assert from_message(tensor).tobytes() == tensor.data
        except TensorError:
            assert not says(tensor) or max(tensor.shape) > 2**20


@given(st.binary(max_size=300))
def test_any_bytes_are_no_request_or_one_whose_tensors_can_be_checked(data):
    check_as_a_request(data)


@given(st.data())
def test_a_damaged_request_is_no_request_or_one_that_can_be_checked(data):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    body = bytearray(
        teacher_pb2.QueryRequest(
            request_id="x", samples=[to_message("samples", array)], taps=["hint"]
        ).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check_as_a_request(bytes(body[: data.draw(st.integers(0, len(body)))]))


@pytest.mark.parametrize("dimensions", [MAX_DIMENSIONS + 1, 20])
def test_what_could_not_be_read_is_not_written(dimensions):
    with pytest.raises(TensorError, match=f"{dimensions} dimensions"):
        to_message("x", np.zeros((1,) * dimensions, np.uint8))


@given(st.text(max_size=200))
def test_an_error_repeats_little_of_a_name_on_one_line(name):
    message = teacher_pb2.Tensor(name=name.encode("utf-8", "replace").decode(), dtype=99)
    with pytest.raises(TensorError) as caught:
        from_message(message)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 100


def test_a_name_is_shown_as_it_is_where_it_is_short_and_plain():
    assert shown("hint.2") == "hint.2"
    assert shown("a\nb\0") == "a?b?"
    assert shown("n" * 41) == "n" * 40 + "…"
