"""Attacks below gRPC: connections, TLS handshakes and HTTP/2 frames, on a socket each."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Final

from benchmarks.fuzz import frames
from benchmarks.fuzz.face import QUERY, TEXT_CANARY, Face
from benchmarks.fuzz.frames import END_HEADERS, END_STREAM, block, call, frame, message
from benchmarks.fuzz.shooting import Row
from benchmarks.fuzz.shots import ENTRIES
from benchmarks.fuzz.target import Target

_SECONDS: Final = 60.0
_SILENCE: Final = 1.0
"""Seconds after which a service that says nothing is left, where silence is right."""
_AT_ONCE: Final = 8


def _plain(target: Target) -> socket.socket:
    return socket.create_connection(("localhost", target.port), timeout=_SECONDS)


def _reset(connection: socket.socket) -> None:
    """Closes with a TCP reset in the place of a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _hello(target: Target) -> bytes:
    """A true ClientHello."""
    out = ssl.MemoryBIO()
    side = target.tls("anna").wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        side.do_handshake()
    return out.read()


def _until_closed(connection: socket.socket) -> str:
    """How the service ends a connection that is no gRPC."""
    try:
        received = b""
        while part := connection.recv(4096):
            received += part
            if b"200 OK" in received:
                return "an answer"
    except TimeoutError:
        return "silence"
    except OSError:
        pass
    return "closed"


def _dropped(target: Target, rng: random.Random, face: Face) -> str:
    connection = _plain(target)
    if rng.random() < 0.5:
        connection.close()
    else:
        _reset(connection)
    return "closed by us"


def _handshake_cut(target: Target, rng: random.Random, face: Face) -> str:
    hello = _hello(target)
    connection = _plain(target)
    connection.sendall(hello[: rng.randrange(1, len(hello) + 1)])
    _reset(connection) if rng.random() < 0.5 else connection.close()
    return "closed by us"


def _no_tls(target: Target, rng: random.Random, face: Face) -> str:
    with _plain(target) as connection:
        connection.sendall(rng.randbytes(600))
        connection.shutdown(socket.SHUT_WR)
        return _until_closed(connection)


def _http_1(target: Target, rng: random.Random, face: Face) -> str:
    with _plain(target) as connection:
        verb = rng.choice(("GET", "POST", "CONNECT"))
        connection.sendall(f"{verb} /{TEXT_CANARY} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return _until_closed(connection)


def _plain_http_2(target: Target, rng: random.Random, face: Face) -> str:
    with _plain(target) as connection:
        connection.sendall(frames.opening())
        return _until_closed(connection)


def _no_certificate(target: Target, rng: random.Random, face: Face) -> str:
    context = ssl.create_default_context(cafile=str(target.certificates / "anna" / "ca.pem"))
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(_plain(target), server_hostname="localhost") as connection:
            connection.sendall(frames.opening())
            return _until_closed(connection)
    except OSError:
        return "closed"


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
_IGNORED: Final = frozenset({"silence"})
"""Of what is not over yet, or means nothing; the call's deadline and our going end it."""
_TRANSPORT: Final = frozenset({"status 13"})
"""gRPC's own word for a call that breaks the rules of its transport: no code of ours is reached."""
_INVALID: Final = frozenset({"status 3"})
_SPEECHES: Final[dict[str, tuple[frozenset[str], Speech]]] = {
    "frames of random bytes": (_ENDED, lambda rng, face: rng.randbytes(900)),
    "frames of all kinds": (_ENDED | _IGNORED | _TRANSPORT, _any_frames),
    "a frame of 16 MB": (
        _ENDED, lambda rng, face: frame(frames.DATA, 0, 1, b"x" * 9, length=2**24 - 1)
    ),
    "data before headers": (
        _ENDED | _IGNORED, lambda rng, face: frame(frames.DATA, END_STREAM, 1, message(b"x"))
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
        _ENDED | _IGNORED,
        lambda rng, face: 2 * frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
    ),
    "window of zero": (_ENDED, lambda rng, face: frame(frames.WINDOW_UPDATE, 0, 0, bytes(4))),
    "5,000 pings": (_ENDED, lambda rng, face: 5000 * frame(frames.PING, 0, 0, bytes(8))),
    "5,000 settings": (_ENDED | _IGNORED, lambda rng, face: 5000 * frame(frames.SETTINGS, 0, 0)),
    "endless headers": (_ENDED | _IGNORED, _continuations),
    "1,000 streams reset at once": (_ENDED | _IGNORED, _resets),
    "1,000 streams left open": (_ENDED | _IGNORED, _streams),
    "half-closed without a message": (_IGNORED | _ENDED, lambda rng, face: _query()),
    "message cut off": (
        _IGNORED | _TRANSPORT, lambda rng, face: _query(message(_settled(rng, face), length=2**20))
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


Attack = Callable[[Target, random.Random, Face], str]


def _said(speech: Speech, patience: float) -> Attack:
    def say(target: Target, rng: random.Random, face: Face) -> str:
        with target.tls("anna").wrap_socket(_plain(target), server_hostname="localhost") as talk:
            # What is still being sent when the service closes is its right to ignore.
            with suppress(OSError):
                talk.sendall(frames.opening() + speech(rng, face))
            talk.settimeout(patience)
            return frames.ending(talk)

    return say


_OURS: Final = frozenset({"closed by us"})
_REFUSED: Final = frozenset({"closed"})
_BELOW_TLS: Final[dict[str, tuple[float, frozenset[str], Attack]]] = {
    "connections opened and dropped": (0.1, _OURS, _dropped),
    "handshakes broken off": (0.01, _OURS, _handshake_cut),
    "bytes that are no TLS": (0.003, _REFUSED, _no_tls),
    "plain HTTP/1": (0.002, _REFUSED, _http_1),
    "plain HTTP/2": (0.002, _REFUSED, _plain_http_2),
    "no certificate": (0.002, _REFUSED, _no_certificate),
}
"""Name → connections for each hostile request above gRPC, how one may end, what is done with it."""
_PER_SPEECH: Final = 0.0003


def attack(
    target: Target, face: Face, seed: int, requests: int, end: float, table: dict[str, Row]
) -> None:
    """All kinds of attacks, in proportion to `requests`, some at once. Blocks.

    end: by `time.monotonic`; none is begun after it.
    """
    work: list[tuple[str, frozenset[str], Attack]] = []
    for name, (share, right, attacker) in _BELOW_TLS.items():
        work += [(name, right, attacker)] * max(1, round(share * requests))
    for name, (right, speech) in _SPEECHES.items():
        said = _said(speech, _SILENCE if right & _IGNORED else _SECONDS)
        work += [(name, right, said)] * max(1, round(_PER_SPEECH * requests))
    random.Random(seed).shuffle(work)

    def one(place: int) -> str | None:
        if time.monotonic() > end:
            return None
        try:
            return work[place][2](target, random.Random(seed + place), face)
        except OSError as error:
            return type(error).__name__

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        outcomes = pool.map(one, range(len(work)))
        for (name, right, _), outcome in zip(work, outcomes, strict=True):
            if outcome is not None:
                table.setdefault(name, Row()).add((outcome, ""), outcome, outcome in right)


def hold(target: Target, face: Face, count: int, stack: ExitStack, table: dict[str, Row]) -> None:
    """Opens `count` of each kind of slow connection, which `stack` closes."""
    hello = _hello(target)
    nobody_reads = frames.opening(struct.pack(">HI", 4, 0))
    everything = frame(frames.HEADERS, END_HEADERS, 1, block(call(ENTRIES, timeout="1H"))) + frame(
        frames.DATA, END_STREAM, 1, message(b"")
    )
    unfinished = frame(frames.HEADERS, END_HEADERS, 1, block(call(QUERY, timeout="1H"))) + frame(
        frames.DATA, 0, 1, message(face.settled[0])[:9]
    )
    kinds = {
        "slow handshakes": (None, hello[:9]),
        "slow writers": ("anna", frames.opening() + unfinished),
        "slow readers": ("otto", nobody_reads + everything),
    }
    for name, (who, first) in kinds.items():
        for _ in range(count):
            connection = _plain(target)
            if who is not None:
                connection = target.tls(who).wrap_socket(connection, server_hostname="localhost")
            stack.enter_context(connection)
            connection.sendall(first)
            table.setdefault(name, Row()).add(("held", ""), "", True)


def flood(target: Target, count: int, stack: ExitStack, table: dict[str, Row]) -> None:
    """Opens `count` connections that say nothing, which `stack` closes."""
    row = table.setdefault("connections held at once", Row())
    for _ in range(count):
        stack.enter_context(_plain(target))
        row.add(("held", ""), "", True)
