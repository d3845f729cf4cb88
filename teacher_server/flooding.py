"""What a flood of connections may take: never the files that the ledger needs.

Anybody who reaches the port can open connections, with no certificate at all. Where they used up
the process's files, the ledger could open none of its own, which it must take for a fault. And a
certificate opens as many as there is room for: none of them stays for ever.
"""

from __future__ import annotations

import resource
from typing import Final

_CONNECTIONS: Final = 1000
_STREAMS: Final = 256
_PENDING: Final = 10_000
_HANDSHAKE_MILLISECONDS: Final = 10_000
_IDLE_MILLISECONDS: Final = 5 * 60_000
_AGE_MILLISECONDS: Final = 60 * 60_000
_GRACE_MILLISECONDS: Final = 10 * 60_000


def channel_options() -> list[tuple[str, int]]:
    """The server's options; connections take half of the files that this process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _CONNECTIONS if files == resource.RLIM_INFINITY else min(_CONNECTIONS, files // 2)
    return [
        # What comes above it is closed at once, and does not wait in the system's queue.
        ("grpc.max_allowed_incoming_connections", most),
        # A connection that shows no certificate by then makes room; gRPC's own patience is 120 s.
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
        # Who asks nothing makes room, and connects anew with the next call.
        ("grpc.max_connection_idle_ms", _IDLE_MILLISECONDS),
        # So does, at the latest, who was let in an hour ago and may have been revoked since; a call
        # under way has as long as the longest deadline to end.
        ("grpc.max_connection_age_ms", _AGE_MILLISECONDS),
        ("grpc.max_connection_age_grace_ms", _GRACE_MILLISECONDS),
        # Calls that one connection may leave open; gRPC's own limit is 2^31.
        ("grpc.max_concurrent_streams", _STREAMS),
        # From 1,000 calls on that wait to be taken up, gRPC would by default drop some, of any
        # caller, as CANCELLED, which nobody retries. One client's connections could bring it there.
        ("grpc.server.max_pending_requests", _PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING),
    ]
