"""What a fuzzed service expects, as the fuzzer needs it, and what is wrong with given bytes.

`faults` is written from the protocol's text alone, so that the service is held against something
that is not itself.
"""

from __future__ import annotations

import random
import re
import uuid
from dataclasses import dataclass
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from protos import teacher_pb2

QUERY: Final = "/ktan.teacher.v1.TeacherService/Query"
TEXT_CANARY: Final = "T3XT-C4NARY"
SAMPLE_CANARY: Final = b"S4MPLE-C4NARY-"
"""No log may hold either of them: names, taps and ids carry the one, samples the other."""
ROW: Final = 16
_LARGEST: Final = 1e6
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DTYPES: Final = {
    teacher_pb2.DATA_TYPE_UINT8: "u1",
    teacher_pb2.DATA_TYPE_INT64: "<i8",
    teacher_pb2.DATA_TYPE_FLOAT32: "<f4",
}


@dataclass(frozen=True)
class Face:
    """One fuzzed service: the type of its samples (rows of 16), and its limits."""

    name: str
    dtype: teacher_pb2.DataType
    max_samples: int
    taps: tuple[str, ...]
    settled: tuple[bytes, ...]
    """Requests of the hostile client that were answered, with samples that were paid for before."""

    @property
    def item(self) -> int:
        """Bytes of one value."""
        return np.dtype(_DTYPES[self.dtype]).itemsize

    def rows(self, rng: random.Random, count: int) -> bytes:
        """The bytes of `count` samples that could be answered, if all else were right."""
        if self.dtype == teacher_pb2.DATA_TYPE_UINT8:
            return b"".join(SAMPLE_CANARY + rng.randbytes(2) for _ in range(count))
        return np.array([[rng.uniform(-9, 9)] * ROW] * count, dtype="<f4").tobytes()

    def request(self, rng: random.Random, count: int = 1) -> teacher_pb2.QueryRequest:
        """A request with nothing wrong, to be spoilt: new samples under a new id."""
        tensor = teacher_pb2.Tensor(
            name="samples", dtype=self.dtype, shape=[count, ROW], data=self.rows(rng, count)
        )
        identifier = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        taps = rng.sample(self.taps, rng.randrange(len(self.taps) + 1))
        return teacher_pb2.QueryRequest(request_id=identifier, samples=[tensor], taps=taps)

    def faults(self, body: bytes) -> frozenset[str]:
        """Every reason for which a query with these bytes may be refused; empty: it is valid."""
        try:
            request = teacher_pb2.QueryRequest.FromString(body)
        except DecodeError:
            return frozenset({"MALFORMED_MESSAGE"})
        found = set()
        if not _UUID.fullmatch(request.request_id):
            found.add("INVALID_REQUEST_ID")
        if len(set(request.taps)) < len(request.taps) or not set(request.taps) <= set(self.taps):
            found.add("INVALID_TAP")
        if len(request.samples) != 1 or self._tensor_is_wrong(request.samples[0]):
            found.add("INVALID_TENSOR")
        if len(request.samples) == 1:
            shape = request.samples[0].shape
            if not shape or not 1 <= shape[0] <= self.max_samples:
                found.add("TOO_MANY_SAMPLES")
        return frozenset(found)

    def _tensor_is_wrong(self, tensor: teacher_pb2.Tensor) -> bool:
        if tensor.name != "samples" or tensor.dtype != self.dtype:
            return True
        if len(tensor.shape) != 2 or tensor.shape[1] != ROW:
            return True
        if tensor.shape[0] < 0 or tensor.shape[0] * ROW * self.item != len(tensor.data):
            return True
        if self.dtype != teacher_pb2.DATA_TYPE_FLOAT32:
            return False
        values = np.frombuffer(tensor.data, dtype="<f4")
        return not bool((np.abs(values) <= _LARGEST).all())
