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
from benchmarks.fuzz.kinds import ENTRIES
from benchmarks.fuzz.shooting import Row
from benchmarks.fuzz.speeches import IGNORED, SPEECHES, Speech
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
    for name, (right, speech) in SPEECHES.items():
        said = _said(speech, _SILENCE if right & IGNORED else _SECONDS)
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
