"""The kinds of hostile requests over gRPC, and for each the statuses that are right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import grpc

from benchmarks.fuzz import queries
from benchmarks.fuzz.face import QUERY, TEXT_CANARY, Face
from benchmarks.fuzz.shots import Shot
from protos import teacher_pb2

DESCRIBE: Final = "/ktan.teacher.v1.TeacherService/Describe"
BUDGET: Final = "/ktan.teacher.v1.TeacherService/GetBudget"
ENTRIES: Final = "/ktan.teacher.v1.AuditService/ListEntries"
HEALTH: Final = "/grpc.health.v1.Health/Check"
REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

_OK: Final = ("OK", "")
_LATE: Final = ("DEADLINE_EXCEEDED", "")
_TOO_LARGE: Final = ("RESOURCE_EXHAUSTED", "")
_DENIED: Final = ("PERMISSION_DENIED", "WRONG_ROLE")
_MALFORMED: Final = ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")


def _free(rng: random.Random, face: Face) -> Shot:
    """A query that was answered before, and may be answered again."""
    return Shot(rng.choice(face.settled), frozenset({_OK}))


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
    right = _OK if timeout < 1 else ("INVALID_ARGUMENT", "DEADLINE_REQUIRED")
    return replace(_free(rng, face), timeout=timeout, right=frozenset({right, _LATE}))


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
    shot = queries.identifiers(rng, face)
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
    shot = rng.choice((queries.flipped, queries.absurd_sizes, queries.identifiers))(rng, face)
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
    "random bytes": (8, queries.random_bytes),
    "truncated": (8, queries.truncated),
    "bits flipped": (10, queries.flipped),
    "spliced": (8, queries.spliced),
    "huge length prefix": (4, queries.length_prefix),
    "deep nesting": (3, queries.nested),
    "no UTF-8": (4, queries.bad_text),
    "shape against bytes": (6, queries.disagreeing),
    "absurd sizes": (6, queries.absurd_sizes),
    "negative sizes": (3, queries.negative_sizes),
    "dimensions": (3, queries.dimensions),
    "dtypes": (5, queries.dtypes),
    "values": (5, queries.values),
    "names and number of tensors": (5, queries.names),
    "no or too many samples": (3, queries.counts),
    "taps": (4, queries.taps),
    "request ids": (5, queries.identifiers),
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


def draw(rng: random.Random, face: Face, count: int) -> list[str]:
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
