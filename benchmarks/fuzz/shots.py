"""The kinds of hostile requests, and for each the statuses that are right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, cast

import grpc

from benchmarks.fuzz.face import QUERY, ROW, TEXT_CANARY, Face
from protos import teacher_pb2

DESCRIBE: Final = "/ktan.teacher.v1.TeacherService/Describe"
BUDGET: Final = "/ktan.teacher.v1.TeacherService/GetBudget"
ENTRIES: Final = "/ktan.teacher.v1.AuditService/ListEntries"
HEALTH: Final = "/grpc.health.v1.Health/Check"
REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
PATIENCE: Final = 120.0

Status = tuple[str, str]
"""A status code's name, and the service's reason, empty where gRPC itself answered."""
_OK: Final = ("OK", "")
_LATE: Final = ("DEADLINE_EXCEEDED", "")
_TOO_LARGE: Final = ("RESOURCE_EXHAUSTED", "")
_DENIED: Final = ("PERMISSION_DENIED", "WRONG_ROLE")
_MALFORMED: Final = ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")


@dataclass(frozen=True)
class Shot:
    """One request, as bytes, and the statuses that are right for it."""

    body: bytes
    right: frozenset[Status]
    method: str = QUERY
    role: str = "client"
    timeout: float | None = PATIENCE
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    compression: grpc.Compression = grpc.Compression.NoCompression
    streams: str = ""
    """"out" where responses stream, "both" where requests do too."""
    cancel: float | None = None
    """Seconds after which the caller goes away."""


def _query(face: Face, request: teacher_pb2.QueryRequest | bytes) -> Shot | None:
    """A query with something wrong; None where nothing is, so that it would be charged."""
    body = request if isinstance(request, bytes) else request.SerializeToString()
    wrong = face.faults(body)
    return (
        Shot(body, frozenset(("INVALID_ARGUMENT", reason) for reason in wrong)) if wrong else None
    )


def _free(rng: random.Random, face: Face) -> Shot:
    """A query that was answered before, and may be answered again."""
    return Shot(rng.choice(face.settled), frozenset({_OK}))


def _random_bytes(rng: random.Random, face: Face) -> Shot | None:
    return _query(face, rng.randbytes(rng.choice((1, 2, 7, 40, 300, 5000))))


def _truncated(rng: random.Random, face: Face) -> Shot | None:
    body = face.request(rng, rng.randint(1, 8)).SerializeToString()
    return _query(face, body[: rng.randrange(len(body))])


def _flipped(rng: random.Random, face: Face) -> Shot | None:
    body = bytearray(face.request(rng, rng.randint(1, 3)).SerializeToString())
    for _ in range(rng.randint(1, 6)):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return _query(face, bytes(body))


def _spliced(rng: random.Random, face: Face) -> Shot | None:
    one, two = (face.request(rng, rng.randint(1, 3)).SerializeToString() for _ in range(2))
    return _query(face, one[: rng.randrange(len(one))] + two[rng.randrange(len(two)) :])


def _length_prefix(rng: random.Random, face: Face) -> Shot | None:
    tag = rng.choice((b"\x0a", b"\x12", b"\x1a", b"\x7a"))
    length = rng.choice((b"\xff\xff\xff\xff\x07", b"\xff" * 9 + b"\x01", b"\xff" * 12, b"\x7f"))
    return _query(face, face.request(rng).SerializeToString() + tag + length + rng.randbytes(3))


def _nested(rng: random.Random, face: Face) -> Shot | None:
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


def _bad_text(rng: random.Random, face: Face) -> Shot | None:
    broken = rng.choice(
        (b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80")
    )
    if rng.random() < 0.5:
        return _query(face, b"\x0a" + bytes([len(broken)]) + broken)
    return _query(
        face, face.request(rng).SerializeToString() + b"\x1a" + bytes([len(broken)]) + broken
    )


def _disagreeing(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng, rng.randint(1, 8))
    tensor = request.samples[0]
    if rng.random() < 0.5:
        tensor.data = tensor.data[: rng.randrange(len(tensor.data))]
    else:
        tensor.shape[:] = [rng.randint(0, 300) for _ in range(rng.randint(0, 4))]
    return _query(face, request)


def _absurd_sizes(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    sizes = (0, 1, ROW, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
    request.samples[0].shape[:] = [1, *(rng.choice(sizes) for _ in range(rng.randint(1, 7)))]
    if rng.random() < 0.3:
        request.samples[0].shape[0] = rng.choice(sizes)
    if rng.random() < 0.5:
        request.samples[0].data = b""
    return _query(face, request)


def _negative_sizes(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    sizes = (-1, -ROW, -(2**31), -(2**63))
    request.samples[0].shape[:] = [rng.choice((1, *sizes)), rng.choice(sizes)]
    return _query(face, request)


def _dimensions(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    request.samples[0].shape[:] = [1] * rng.choice((0, 1, 3, 9, 64, 65, 1000, 20_000))
    return _query(face, request)


def _dtypes(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    number = rng.choice((0, 1, 2, 3, 4, 7, 255, 2**31 - 1, -1, -(2**31)))
    request.samples[0].dtype = cast(teacher_pb2.DataType, number)
    if rng.random() < 0.5:
        request.samples[0].data = rng.randbytes(ROW * rng.choice((1, 2, 4, 8)))
    return _query(face, request)


def _values(rng: random.Random, face: Face) -> Shot | None:
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


def _names(rng: random.Random, face: Face) -> Shot | None:
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


def _counts(rng: random.Random, face: Face) -> Shot | None:
    most = face.max_samples
    return _query(face, face.request(rng, rng.choice((0, 0, 0, 0, most + 1, 2 * most, 4 * most))))


def _taps(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    known = rng.choice(face.taps)
    unknown = rng.choice((TEXT_CANARY, TEXT_CANARY * 3000, "", "\0", f"{known} ", "é" * 500, "*"))
    extra = rng.choice(([known, known], [unknown], [known, unknown], [known] * 3000))
    request.taps[:] = extra
    return _query(face, request)


def _identifiers(rng: random.Random, face: Face) -> Shot | None:
    request = face.request(rng)
    good = request.request_id
    forms = (
        "", good.upper(), good.replace("-", ""), "{" + good + "}", "urn:uuid:" + good, good[:-1],
        good + "0", good + "\n", " " + good, TEXT_CANARY, TEXT_CANARY * 5000, "\0" * 36, "٣" * 32,
        "_".join(good), "0x" + good[2:], "'; DROP TABLE entries; --",
    )  # fmt: skip
    request.request_id = rng.choice(forms)
    return _query(face, request)


def _reused(rng: random.Random, face: Face) -> Shot:
    settled = teacher_pb2.QueryRequest.FromString(rng.choice(face.settled))
    other = face.request(rng, rng.randint(1, 4))
    other.request_id = settled.request_id
    return Shot(other.SerializeToString(), frozenset({("ALREADY_EXISTS", "REQUEST_ID_REUSED")}))


def _no_deadline(rng: random.Random, face: Face) -> Shot:
    right = frozenset({("INVALID_ARGUMENT", "DEADLINE_REQUIRED")})
    method, body = rng.choice(
        (
            (QUERY, face.request(rng).SerializeToString()),
            (DESCRIBE, b""),
            (BUDGET, b""),
            (HEALTH, b""),
        )
    )
    return Shot(body, right, method, timeout=None)


def _deadlines(rng: random.Random, face: Face) -> Shot:
    timeout = rng.choice((-1.0, 0.0, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 1e5, 1e8, 1e12))
    return replace(_free(rng, face), timeout=timeout, right=frozenset({_OK, _LATE}))


def _cancelled(rng: random.Random, face: Face) -> Shot:
    shot = replace(_free(rng, face), right=frozenset({_OK, ("CANCELLED", "")}))
    return replace(shot, cancel=rng.choice((0.0, 0.001, 0.01, 0.03)))


def _methods(rng: random.Random, face: Face) -> Shot:
    del face
    service = "/ktan.teacher.v1.TeacherService/"
    names = ("", "query", "Query/", "Query\x7f", TEXT_CANARY, TEXT_CANARY * 100, "../Query")
    others = ("/", "//", "/Query", f"/{TEXT_CANARY}/x", "/grpc.channelz.v1.Channelz/GetServers")
    method = rng.choice((*(service + name for name in names), *others))
    return Shot(rng.randbytes(8), frozenset({("UNIMPLEMENTED", "")}), method)


def _roles(rng: random.Random, face: Face) -> Shot:
    right = frozenset({_DENIED})
    if rng.random() < 0.5:
        body = rng.choice((face.request(rng).SerializeToString(), rng.randbytes(9)))
        return Shot(body, right, role="auditor")
    return Shot(rng.choice((b"", b"\xff")), right, ENTRIES, streams="out")


def _oversize(rng: random.Random, face: Face) -> Shot:
    del face
    return Shot(bytes(8 * 2**20 + rng.randint(1, 2**20)), frozenset({_TOO_LARGE}))


def _metadata(rng: random.Random, face: Face) -> Shot | None:
    shot = _identifiers(rng, face)
    if shot is None:
        return None
    if rng.random() < 0.1:
        return replace(
            shot, metadata=(("x-long", TEXT_CANARY * 2000),), right=frozenset({_TOO_LARGE})
        )
    pairs: list[tuple[str, str | bytes]] = [
        ("authorization", f"Bearer {TEXT_CANARY}"), ("x-bin", rng.randbytes(200)),
        ("ktan-role", "auditor"), ("x-forwarded-for", "127.0.0.1"), ("peer_uri", "ktan://auditor/x"),
        ("grpc-status-details-bin", rng.randbytes(20)), ("content-encoding", "gzip"),
        ("x" * 200, "y" * 200), ("cookie", " ~"),
    ]  # fmt: skip
    return replace(shot, metadata=tuple(rng.choices(pairs, k=rng.randint(1, 8))))


def _compressed(rng: random.Random, face: Face) -> Shot | None:
    way = rng.choice((grpc.Compression.Gzip, grpc.Compression.Deflate))
    shot = rng.choice((_flipped, _absurd_sizes, _identifiers))(rng, face)
    return shot and replace(shot, compression=way)


def _bombs(rng: random.Random, face: Face) -> Shot:
    del face
    body = bytes(rng.choice((9, 32)) * 2**20)
    return Shot(body, frozenset({_TOO_LARGE}), compression=grpc.Compression.Gzip)


def _other_calls(rng: random.Random, face: Face) -> Shot:
    del face
    broken = rng.choice((b"\xff", b"\x0a\x7f", b"\x08", b"\x0a\x01\xff"))
    method = rng.choice((DESCRIBE, BUDGET, HEALTH, ENTRIES, REFLECTION))
    if method == ENTRIES:
        return Shot(broken[:1], frozenset({_MALFORMED}), method, "auditor", streams="out")
    if method == REFLECTION:
        return Shot(broken[:1], frozenset({_MALFORMED}), method, streams="both")
    # An unknown field, even one whose bytes are no text, is no fault.
    right = frozenset({_OK if broken[0] == 10 and len(broken) == 3 else _MALFORMED})
    if method == HEALTH:
        right = frozenset({_MALFORMED})
    return Shot(broken, right, method)


def _log_places(rng: random.Random, face: Face) -> Shot:
    del face
    first = rng.choice((-1, 0, 2**31, 2**62, 2**63 - 1, -(2**63)))
    body = teacher_pb2.ListEntriesRequest(first=first).SerializeToString()
    return Shot(body, frozenset({_OK}), ENTRIES, "auditor", streams="out")


Maker = Callable[[random.Random, Face], Shot | None]

KINDS: Final[dict[str, tuple[float, Maker]]] = {
    "random bytes": (8, _random_bytes),
    "truncated": (8, _truncated),
    "bits flipped": (10, _flipped),
    "spliced": (8, _spliced),
    "huge length prefix": (4, _length_prefix),
    "deep nesting": (3, _nested),
    "no UTF-8": (4, _bad_text),
    "shape against bytes": (6, _disagreeing),
    "absurd sizes": (6, _absurd_sizes),
    "negative sizes": (3, _negative_sizes),
    "dimensions": (3, _dimensions),
    "dtypes": (5, _dtypes),
    "values": (5, _values),
    "names and number of tensors": (5, _names),
    "no or too many samples": (3, _counts),
    "taps": (4, _taps),
    "request ids": (5, _identifiers),
    "request ids reused": (4, _reused),
    "no deadline": (3, _no_deadline),
    "deadlines": (3, _deadlines),
    "cancelled": (2, _cancelled),
    "unknown methods": (4, _methods),
    "wrong role": (4, _roles),
    "metadata": (3, _metadata),
    "compressed": (3, _compressed),
    "other calls' bytes": (3, _other_calls),
    "places in the log": (0.2, _log_places),
    "too large": (0.05, _oversize),
    "compression bombs": (0.05, _bombs),
}
"""Name → its share of all requests, and what makes one."""


def shots(rng: random.Random, face: Face, count: int) -> list[str]:
    """The names of `count` kinds by their shares, each at least once where there is room."""
    names = list(KINDS)
    weights = [KINDS[name][0] for name in names]
    drawn = names[:count] + rng.choices(names, weights, k=max(0, count - len(names)))
    rng.shuffle(drawn)
    return drawn


def make(rng: random.Random, face: Face, name: str) -> Shot:
    """One request of a kind. What would be valid after all, and charged, is made anew."""
    while True:
        shot = KINDS[name][1](rng, face)
        if shot is not None:
            return shot
