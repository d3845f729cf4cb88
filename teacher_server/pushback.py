"""Tells gRPC's own retries how long to wait (gRFC A6, "pushback").

A client whose channel retries by itself would come back after its own backoff, of a tenth of a
second at first, whatever the status says; with this it waits as long as the hint, and as often as
its policy lets it.
"""

from __future__ import annotations

import math
from typing import Final

import grpc

KEY: Final = "grpc-retry-pushback-ms"
_LONGEST_MS: Final = 10_000
_GIVE_UP: Final = "-1"


def with_pushback(
    status: grpc.Status, retry_seconds: float | None, time_remaining: float | None
) -> grpc.Status:
    """`status` with the hint for gRPC, where there is one.

    Where the call's deadline would pass meanwhile, or the user would wait long without a word, gRPC
    is told to give up at once: the caller then sees this status and its hint, and not a deadline
    that has passed.
    """
    if retry_seconds is None:
        return status
    # Never 0: gRPC's core (1.85) then waits for ever.
    milliseconds = max(1, math.ceil(retry_seconds * 1000))
    remaining = math.inf if time_remaining is None else time_remaining * 1000
    told = str(milliseconds) if milliseconds < min(remaining, _LONGEST_MS + 1) else _GIVE_UP
    return status._replace(trailing_metadata=(*(status.trailing_metadata or ()), (KEY, told)))
