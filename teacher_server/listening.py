"""Where and how the server listens: a port, and the certificates that it shows and demands."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from ktan.errors import UserError
from protos.channel import is_loopback
from teacher_server.credentials import ServerCertificates
from teacher_server.revocation import FILE as REVOKED_FILE
from teacher_server.revocation import Revocations

_LOOK_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Transport:
    """Where and how the server listens."""

    listen: str
    """HOST:PORT; port 0 takes a free one."""
    certificates: Path | None
    """Folder with `ca.pem`, `certificate.pem`, `key.pem`; None serves plaintext on loopback."""
    reflection: bool
    max_waiting_samples: int
    grace_seconds: float
    revoked: Path | None = None
    """List of the revoked; None for `revoked` in the folder of certificates, if it is there."""

    def revocations(self) -> Revocations | None:
        """Who is refused; None for plaintext, where nobody has a certificate. Raises UserError."""
        if self.certificates is None:
            return None
        path = self.revoked or self.certificates / REVOKED_FILE
        return Revocations(path, needed=self.revoked is not None)


def bind(server: grpc.aio.Server, transport: Transport) -> str:
    """Has the server listen; the address with the port that it got. Raises UserError.

    In the running event loop, which from then on looks for changed certificates.
    """
    host, colon, number = transport.listen.rpartition(":")
    if not (host and colon and number.isascii() and number.isdigit() and int(number) < 2**16):
        raise UserError(f"--listen {transport.listen}: give HOST:PORT, such as 0.0.0.0:50051")
    try:
        if transport.certificates is None:
            if not is_loopback(host.strip("[]")):
                raise UserError(f"--plaintext serves on loopback only, not on {transport.listen}")
            port = server.add_insecure_port(transport.listen)
        else:
            certificates = ServerCertificates(transport.certificates)
            port = server.add_secure_port(transport.listen, certificates.credentials())
            _look_often(certificates)
    except RuntimeError:
        raise UserError(_why_not(host.strip("[]"), int(number))) from None
    return f"{host}:{port}"


def _look_often(certificates: ServerCertificates) -> None:
    """Looks now and from then on: also where nobody connects, a change is taken and told of."""
    certificates.look()
    asyncio.get_running_loop().call_later(_LOOK_SECONDS, _look_often, certificates)


def _why_not(host: str, port: int) -> str:
    """Why nothing can listen there. grpc does not tell; the system does."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        return f"--listen: {host} is no name or address that this machine knows"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is in use: stop what listens there, or give another by --listen"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"--listen: {host} is no address of this machine"
        return f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}"
    return f"cannot listen on {host}, port {port}: it was in use a moment ago; try again"
