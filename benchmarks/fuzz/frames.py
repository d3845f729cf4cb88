"""HTTP/2 by hand, as much as it takes to break its rules (RFC 9113) and to see how that ends."""

from __future__ import annotations

import re
import ssl
import struct
from collections.abc import Sequence
from typing import Final

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM: Final = 1
END_HEADERS: Final = 4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STATUS: Final = re.compile(rb"grpc-status[\x01\x02](\d{1,2})")
"""The first on a connection is sent as it is, not by a place in a table."""


def frame(
    kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None
) -> bytes:
    """One frame; `length` in the place of the true one."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening(settings: bytes = b"") -> bytes:
    """What a client says first."""
    return PREFACE + frame(SETTINGS, 0, 0, settings)


def block(fields: Sequence[tuple[str, str]]) -> bytes:
    """Header fields, each in full and none remembered (RFC 7541, section 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def call(path: str, *, timeout: str | None = "10S", **others: str) -> list[tuple[str, str]]:
    """The header fields of a gRPC call; `others` replace or follow, _ for -."""
    fields = {
        ":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost",
        "content-type": "application/grpc", "te": "trailers",
    }  # fmt: skip
    if timeout is not None:
        fields["grpc-timeout"] = timeout
    named = {name.replace("__", ":").replace("_", "-"): value for name, value in others.items()}
    return list((fields | named).items())


def message(body: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its five bytes in front."""
    return struct.pack(">BI", flag, len(body) if length is None else length) + body


def ending(connection: ssl.SSLSocket) -> str:
    """How the other side ends it: a status, a reset, a farewell, a closed socket, or not at all."""
    received = bytearray()
    try:
        while True:
            part = connection.recv(65536)
            if not part:
                return "closed"
            received += part
            verdict = _verdict(received)
            if verdict is not None:
                return verdict
    except TimeoutError:
        return "silence"
    except OSError:
        return "closed"


def _verdict(received: bytearray) -> str | None:
    while len(received) >= 9:
        size = int.from_bytes(received[:3], "big")
        if len(received) < 9 + size:
            return None
        kind, payload = received[3], bytes(received[9 : 9 + size])
        del received[: 9 + size]
        if kind == HEADERS and (found := _STATUS.search(payload)):
            return f"status {int(found[1])}"
        if kind == RST_STREAM:
            return "stream reset"
        if kind == GOAWAY:
            return "farewell"
    return None


def _text(text: str) -> bytes:
    data = text.encode()
    size, prefix = len(data), b""
    if size < 127:
        return bytes([size]) + data
    size, prefix = size - 127, b"\x7f"
    while size > 127:
        prefix, size = prefix + bytes([size & 127 | 128]), size >> 7
    return prefix + bytes([size]) + data
