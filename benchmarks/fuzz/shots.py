"""One hostile request, and the statuses that are right for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

from benchmarks.fuzz.face import QUERY

PATIENCE: Final = 120.0

Status = tuple[str, str]
"""A status code's name, and the service's reason, empty where gRPC itself answered."""


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
