"""How a student reaches a teacher service, and how long it waits for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from ktan.errors import UserError
from protos import channel
from protos.limits import LONGEST_SECONDS


@dataclass(frozen=True)
class Connection:
    """How to reach the service. Raises UserError for a deadline that no call may have."""

    certs: Path | None = None
    """Folder with ca.pem, certificate.pem and key.pem, as the teacher's custodian issued it."""
    plaintext: bool = False
    """No TLS: for a service on this machine that was itself started with --plaintext."""
    deadline: float = 120.0
    """Seconds to wait for one call; 599 at most."""
    patience: float = 60.0
    """Seconds to go on asking while the service is overloaded, restarting or out of reach."""

    def __post_init__(self) -> None:
        if not 0 < self.deadline <= LONGEST_SECONDS:
            raise UserError(
                f"--deadline is {self.deadline:g}; it must be above 0 seconds, and "
                f"{LONGEST_SECONDS:g} at most"
            )


def open_channel(address: str, connection: Connection) -> grpc.Channel:
    """A channel to `address` (HOST:PORT); nothing is sent before the first call.

    Raises UserError for whatever `protos.channel.open_channel` refuses.
    """
    try:
        return channel.open_channel(address, connection.certs, plaintext=connection.plaintext)
    except channel.ChannelError as error:
        raise UserError(str(error)) from None
