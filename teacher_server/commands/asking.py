"""How a command asks a running service: its channel, and what a refusal means to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from ktan.errors import UserError
from protos.channel import ChannelError, open_channel

_UNREACHABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


@contextmanager
def asking(address: str, certs: Path | None, plaintext: bool) -> Iterator[grpc.Channel]:
    """A channel for this block. Raises UserError for a mistake in the call, or its certificates."""
    try:
        with open_channel(address, certs, plaintext=plaintext) as channel:
            yield channel
    except ChannelError as error:
        raise UserError(str(error)) from None


def require_unreachable(error: grpc.RpcError) -> None:
    """Raises UserError where somebody answered, and refused who asks; nobody is no mistake."""
    if error.code() not in _UNREACHABLE:
        raise UserError(f"the service refuses ({error.code().name}): {error.details()}") from None
