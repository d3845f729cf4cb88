"""The fuzzer's short form: hostile requests and connections, and a service that is as it was.

The long form is `python -m benchmarks.fuzz`; docs/fuzzing.md says what it tries.
"""

import asyncio
import random

import pytest

from benchmarks.fuzz.campaign import fuzz
from benchmarks.fuzz.face import ROW, Face
from benchmarks.fuzz.kinds import KINDS, make
from protos import teacher_pb2

FACE = Face("uint8", teacher_pb2.DATA_TYPE_UINT8, 256, ("hint", "logits"), (b"",))


def test_no_hostile_request_is_answered_wrongly_charged_or_remembered(tmp_path):
    outcome = asyncio.run(fuzz(tmp_path / "bytes", seed=7, requests=1600))
    assert outcome.faults == []
    assert set(KINDS) < set(outcome.table)
    assert outcome.facts["probes"] > 20


def test_nor_by_a_service_of_float32_rows(tmp_path):
    outcome = asyncio.run(fuzz(tmp_path / "rows", seed=8, requests=400, rows=True, sockets=False))
    assert outcome.faults == []


def test_the_fuzzer_knows_a_valid_request_and_each_fault():
    rng = random.Random(3)
    valid = FACE.request(rng, 2)
    assert FACE.faults(valid.SerializeToString()) == set()
    for change, fault in (
        (lambda r: r.ClearField("request_id"), "INVALID_REQUEST_ID"),
        (lambda r: r.taps.append("none"), "INVALID_TAP"),
        (lambda r: r.samples.add(), "INVALID_TENSOR"),
        (lambda r: r.samples[0].ClearField("name"), "INVALID_TENSOR"),
    ):
        request = teacher_pb2.QueryRequest.FromString(valid.SerializeToString())
        change(request)
        assert FACE.faults(request.SerializeToString()) == {fault}
    many = FACE.request(rng, 257)
    assert FACE.faults(many.SerializeToString()) == {"TOO_MANY_SAMPLES"}
    assert FACE.faults(b"\xff") == {"MALFORMED_MESSAGE"}
    assert len(FACE.rows(rng, 3)) == 3 * ROW


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_makes_the_same_requests(name):
    settled = FACE.request(random.Random(1)).SerializeToString()
    face = Face("uint8", teacher_pb2.DATA_TYPE_UINT8, 256, ("hint", "logits"), (settled,))
    assert make(random.Random(5), face, name) == make(random.Random(5), face, name)
