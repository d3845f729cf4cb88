"""Queries that are spoilt, as bytes or as tensors. None where nothing is wrong after all."""

from __future__ import annotations

import random
from typing import cast

from benchmarks.fuzz.face import ROW, TEXT_CANARY, Face
from benchmarks.fuzz.shots import Shot
from protos import teacher_pb2


def _query(face: Face, request: teacher_pb2.QueryRequest | bytes) -> Shot | None:
    """A query with something wrong; None where nothing is, so that it would be charged."""
    body = request if isinstance(request, bytes) else request.SerializeToString()
    wrong = face.faults(body)
    return (
        Shot(body, frozenset(("INVALID_ARGUMENT", reason) for reason in wrong)) if wrong else None
    )


def random_bytes(rng: random.Random, face: Face) -> Shot | None:
    return _query(face, rng.randbytes(rng.choice((1, 2, 7, 40, 300, 5000))))


def truncated(rng: random.Random, face: Face) -> Shot | None:
    body = face.request(rng, rng.randint(1, 8)).SerializeToString()
    return _query(face, body[: rng.randrange(len(body))])


def flipped(rng: random.Random, face: Face) -> Shot | None:
    body = bytearray(face.request(rng, rng.randint(1, 3)).SerializeToString())
    for _ in range(rng.randint(1, 6)):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return _query(face, bytes(body))


def spliced(rng: random.Random, face: Face) -> Shot | None:
    one, two = (face.request(rng, rng.randint(1, 3)).SerializeToString() for _ in range(2))
    return _query(face, one[: rng.randrange(len(one))] + two[rng.randrange(len(two)) :])


def length_prefix(rng: random.Random, face: Face) -> Shot | None:
    tag = rng.choice((b"\x0a", b"\x12", b"\x1a", b"\x7a"))
    length = rng.choice((b"\xff\xff\xff\xff\x07", b"\xff" * 9 + b"\x01", b"\xff" * 12, b"\x7f"))
    return _query(face, face.request(rng).SerializeToString() + tag + length + rng.randbytes(3))


def nested(rng: random.Random, face: Face) -> Shot | None:
    depth = rng.choice((10, 99, 101, 1000, 50_000))
    if rng.random() < 0.5:
        return _query(face, b"\x23" * depth + b"\x24" * rng.choice((0, depth)))
    body = b""
    for _ in range(min(depth, 200)):
        size, prefix = len(body), b""
        while size > 127:
            prefix, size = prefix + bytes([size & 127 | 128]), size >> 7
        body = b"\x12" + prefix + bytes([size]) + body
    return _query(face, body)


def bad_text(rng: random.Random, face: Face) -> Shot | None:
    broken = rng.choice(
        (b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80")
    )
    if rng.random() < 0.5:
        return _query(face, b"\x0a" + bytes([len(broken)]) + broken)
    return _query(
        face, face.request(rng).SerializeToString() + b"\x1a" + bytes([len(broken)]) + broken
    )


def disagreeing(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng, rng.randint(1, 8))
    tensor = request.samples[0]
    if rng.random() < 0.5:
        tensor.data = tensor.data[: rng.randrange(len(tensor.data))]
    else:
        tensor.shape[:] = [rng.randint(0, 300) for _ in range(rng.randint(0, 4))]
    return _query(face, request)


def absurd_sizes(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    sizes = (0, 1, ROW, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
    request.samples[0].shape[:] = [1, *(rng.choice(sizes) for _ in range(rng.randint(1, 7)))]
    if rng.random() < 0.3:
        request.samples[0].shape[0] = rng.choice(sizes)
    if rng.random() < 0.5:
        request.samples[0].data = b""
    return _query(face, request)


def negative_sizes(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    sizes = (-1, -ROW, -(2**31), -(2**63))
    request.samples[0].shape[:] = [rng.choice((1, *sizes)), rng.choice(sizes)]
    return _query(face, request)


def dimensions(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    request.samples[0].shape[:] = [1] * rng.choice((0, 1, 3, 9, 64, 65, 1000, 20_000))
    return _query(face, request)


def dtypes(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    number = rng.choice((0, 1, 2, 3, 4, 7, 255, 2**31 - 1, -1, -(2**31)))
    request.samples[0].dtype = cast(teacher_pb2.DataType, number)
    if rng.random() < 0.5:
        request.samples[0].data = rng.randbytes(ROW * rng.choice((1, 2, 4, 8)))
    return _query(face, request)


def values(rng: random.Random, face: Face) -> Shot | None:
    """Values of float samples that are no measurements; other samples of random bits."""
    request = face.request(rng, 2)
    if face.dtype == teacher_pb2.DATA_TYPE_FLOAT32:
        # NaNs, infinities, the largest float, ten million.
        bad = rng.choice(("0000c07f", "010080ff", "0000807f", "000080ff", "ffff7f7f", "80961849"))
        place = 4 * rng.randrange(2 * ROW)
        data = bytearray(request.samples[0].data)
        data[place : place + 4] = bytes.fromhex(bad)
        request.samples[0].data = bytes(data)
    else:
        request.samples[0].data = rng.randbytes(2 * ROW * 4)
    return _query(face, request)


def names(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    long = TEXT_CANARY * rng.choice((1, 50, 1000, 20_000))
    name = rng.choice(("", "Samples", "samples\0", " samples", "é\n\x1b[31m" * 30, long))
    choice = rng.random()
    if choice < 0.6:
        request.samples[0].name = name
    elif choice < 0.7:
        del request.samples[:]
    else:
        for _ in range(rng.choice((1, 2, 500))):
            request.samples.add(name=name[:40])
    return _query(face, request)


def counts(rng: random.Random, face: Face) -> Shot | None:
    most = face.max_samples
    return _query(face, face.request(rng, rng.choice((0, 0, 0, 0, most + 1, 2 * most, 4 * most))))


def taps(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    known = rng.choice(face.taps)
    unknown = rng.choice((TEXT_CANARY, TEXT_CANARY * 3000, "", "\0", f"{known} ", "é" * 500, "*"))
    extra = rng.choice(([known, known], [unknown], [known, unknown], [known] * 3000))
    request.taps[:] = extra
    return _query(face, request)


def identifiers(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    good = request.request_id
    forms = (
        "", good.upper(), good.replace("-", ""), "{" + good + "}", "urn:uuid:" + good, good[:-1],
        good + "0", good + "\n", " " + good, TEXT_CANARY, TEXT_CANARY * 5000, "\0" * 36, "٣" * 32,
        "_".join(good), "0x" + good[2:], "'; DROP TABLE entries; --",
    )  # fmt: skip
    request.request_id = rng.choice(forms)
    return _query(face, request)
