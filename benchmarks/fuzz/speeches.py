"""What a client with a certificate may say in HTTP/2 and should not, and how that may end."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

from benchmarks.fuzz import frames
from benchmarks.fuzz.face import QUERY, TEXT_CANARY, Face
from benchmarks.fuzz.frames import END_HEADERS, END_STREAM, block, call, frame, message

Speech = Callable[[random.Random, Face], bytes]


def _query(*parts: bytes, **fields: str) -> bytes:
    """A query with these DATA frames, the last of which ends the stream."""
    head = block(call(QUERY, **fields))
    speech = frame(frames.HEADERS, END_HEADERS | (0 if parts else END_STREAM), 1, head)
    for place, part in enumerate(parts, 1):
        speech += frame(frames.DATA, END_STREAM if place == len(parts) else 0, 1, part)
    return speech


def _settled(rng: random.Random, face: Face) -> bytes:
    return rng.choice(face.settled)


def _resets(rng: random.Random, face: Face) -> bytes:
    head = block(call(QUERY))
    return b"".join(
        frame(frames.HEADERS, END_HEADERS, stream, head)
        + frame(frames.RST_STREAM, 0, stream, struct.pack(">I", 8))
        for stream in range(1, 2001, 2)
    )


def _any_frames(rng: random.Random, face: Face) -> bytes:
    return b"".join(
        frame(
            rng.randrange(16),
            rng.randrange(256),
            rng.randrange(9),
            rng.randbytes(size),
        )
        for size in range(40)
    )


def _continuations(rng: random.Random, face: Face) -> bytes:
    more = block([("x", TEXT_CANARY * 50)])
    return frame(frames.HEADERS, 0, 1, block(call(QUERY))) + b"".join(
        frame(frames.CONTINUATION, 0, 1, more) for _ in range(300)
    )


def _streams(rng: random.Random, face: Face) -> bytes:
    head = block(call(QUERY))
    return b"".join(
        frame(frames.HEADERS, END_HEADERS, stream, head) for stream in range(1, 2001, 2)
    )


_ENDED: Final = frozenset({"closed", "farewell", "stream reset"})
IGNORED: Final = frozenset({"silence"})
"""Of what is not over yet, or means nothing; the call's deadline and our going end it."""
_TRANSPORT: Final = frozenset({"status 13"})
"""gRPC's own word for a call that breaks the rules of its transport: no code of ours is reached."""
_INVALID: Final = frozenset({"status 3"})
_CANCELLED: Final = frozenset({"status 1"})
SPEECHES: Final[dict[str, tuple[frozenset[str], Speech]]] = {
    "frames of random bytes": (_ENDED, lambda rng, face: rng.randbytes(900)),
    "frames of all kinds": (_ENDED | IGNORED | _TRANSPORT | {"status 14"}, _any_frames),
    "a frame of 16 MB": (
        _ENDED, lambda rng, face: frame(frames.DATA, 0, 1, b"x" * 9, length=2**24 - 1)
    ),
    "data before headers": (
        _ENDED | IGNORED, lambda rng, face: frame(frames.DATA, END_STREAM, 1, message(b"x"))
    ),
    "headers that are no HPACK": (
        _ENDED | _TRANSPORT,
        lambda rng, face: frame(frames.HEADERS, END_HEADERS | END_STREAM, 1, rng.randbytes(60)),
    ),
    "headers without a path": (
        _ENDED | _TRANSPORT,
        lambda rng, face: frame(
            frames.HEADERS, END_HEADERS | END_STREAM, 1, block([(":method", "POST")])
        ),
    ),
    "settings out of range": (
        _ENDED,
        lambda rng, face: frame(
            frames.SETTINGS, 0, 0, struct.pack(">HI", rng.choice((2, 4, 5)), 2**32 - 1)
        ),
    ),
    "window overflow": (
        _ENDED | IGNORED,
        lambda rng, face: 2 * frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
    ),
    "window of zero": (_ENDED, lambda rng, face: frame(frames.WINDOW_UPDATE, 0, 0, bytes(4))),
    "5,000 pings": (_ENDED, lambda rng, face: 5000 * frame(frames.PING, 0, 0, bytes(8))),
    "5,000 settings": (_ENDED | IGNORED, lambda rng, face: 5000 * frame(frames.SETTINGS, 0, 0)),
    "endless headers": (_ENDED | IGNORED, _continuations),
    "1,000 streams reset at once": (_ENDED | IGNORED | _CANCELLED, _resets),
    "1,000 streams left open": (_ENDED | IGNORED | _CANCELLED, _streams),
    "half-closed without a message": (IGNORED | _ENDED | _CANCELLED, lambda rng, face: _query()),
    "message cut off": (
        IGNORED | _TRANSPORT, lambda rng, face: _query(message(_settled(rng, face), length=2**20))
    ),
    "message of 4 GB": (
        frozenset({"status 8"}), lambda rng, face: _query(message(b"x" * 99, length=2**32 - 1))
    ),
    "compressed by no name": (
        _TRANSPORT, lambda rng, face: _query(message(_settled(rng, face), flag=1))
    ),
    "compressed by an unknown name": (
        _TRANSPORT,
        lambda rng, face: _query(message(_settled(rng, face), flag=1), grpc_encoding=TEXT_CANARY),
    ),
    "compressed, and is not": (
        _TRANSPORT,
        lambda rng, face: _query(message(_settled(rng, face), flag=1), grpc_encoding="gzip"),
    ),
    "flags of no meaning": (
        _INVALID | _TRANSPORT, lambda rng, face: _query(message(b"\xff", flag=0xFE))
    ),
    "two messages": (_INVALID, lambda rng, face: _query(message(b"\xff") + message(b"\xff"))),
    "timeout that is none": (
        _INVALID | _TRANSPORT,
        lambda rng, face: _query(
            message(b"\xff"), timeout=rng.choice(("abc", "-1S", "1", "", "99999999999999H", "1Y"))
        ),
    ),
    "another content type": (
        _INVALID,
        lambda rng, face: _query(
            message(b"\xff"), content_type=rng.choice(("text/html", "application/json"))
        ),
    ),
    "another verb": (
        _ENDED | _TRANSPORT,
        lambda rng, face: _query(message(b"\xff"), __method=rng.choice(("GET", "PUT", "X"))),
    ),
    "authority of another": (
        _INVALID, lambda rng, face: _query(message(b"\xff"), __authority=TEXT_CANARY)
    ),
}  # fmt: skip
"""What is said after the handshake and the first settings, by a client with a certificate, and how
that may end."""
