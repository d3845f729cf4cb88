"""Runs the service: one asyncio loop, mTLS, health, drain.

The model runs in this process, as many calls at once as there are cores, one torch thread each:
oversubscription collapses torch, and a child process costs a copy of every batch.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ktan.errors import UserError
from privacy.ledger import Ledger
from protos import teacher_pb2, teacher_pb2_grpc
from protos.channel import is_loopback
from protos.limits import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES
from teacher_server.answering import Answerer
from teacher_server.guard import Guard
from teacher_server.service import AuditService, Described, Desk, TeacherService

log = logging.getLogger(__name__)

_REQUESTS_AT_ONCE = 64
"""Threads that answer requests. Few are at the teacher (`InTurn`); those that settle meet in one
transaction of the ledger, so that there should be many."""
_SERVICES = (
    teacher_pb2.DESCRIPTOR.services_by_name["TeacherService"].full_name,
    teacher_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,
)


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


async def serve(
    face: Described,
    answerer: Answerer,
    ledger: Ledger,
    transport: Transport,
    on_ready: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serves until `stop` is set, then drains: what was accepted is answered.

    `on_ready` is called with the address that was bound. Raises UserError when it cannot be.
    """
    executor = ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="request")
    desk = Desk(executor, transport.max_waiting_samples)
    guard = Guard(plaintext=transport.certificates is None, on_ledger_fault=stop.set)
    server = grpc.aio.server(
        interceptors=[guard],
        options=[
            # Two servers on one port would split one client's retries between two ledgers.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
        ],
    )
    teacher_pb2_grpc.add_TeacherServiceServicer_to_server(
        TeacherService(face, answerer, ledger, desk), server
    )
    teacher_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(ledger), server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if transport.reflection:
        names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    address = _bind(server, transport)
    try:
        await server.start()
        for name in ("", *_SERVICES):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        on_ready(address)
        await stop.wait()
    finally:
        log.info("draining")
        desk.draining = True
        await status.enter_graceful_shutdown()
        await server.stop(transport.grace_seconds)
        # Work whose client has gone still ends: a charge under way becomes durable.
        await asyncio.to_thread(executor.shutdown)
        log.info("drained")


def _bind(server: grpc.aio.Server, transport: Transport) -> str:
    host, colon, number = transport.listen.rpartition(":")
    if not (host and colon and number.isascii() and number.isdigit() and int(number) < 2**16):
        raise UserError(f"--listen {transport.listen}: give HOST:PORT, such as 0.0.0.0:50051")
    try:
        if transport.certificates is None:
            if not is_loopback(host.strip("[]")):
                raise UserError(f"--plaintext serves on loopback only, not on {transport.listen}")
            port = server.add_insecure_port(transport.listen)
        else:
            port = server.add_secure_port(transport.listen, _credentials(transport.certificates))
    except RuntimeError:
        raise UserError(_why_not(host.strip("[]"), int(number))) from None
    return f"{host}:{port}"


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


def _credentials(folder: Path) -> grpc.ServerCredentials:
    try:
        authority, certificate, key = (
            (folder / name).read_bytes() for name in ("ca.pem", "certificate.pem", "key.pem")
        )
    except OSError as error:
        raise UserError(
            f"{folder} needs ca.pem, certificate.pem and key.pem ({error.strerror}: "
            f"{error.filename}); `teacher-server certs` makes them"
        ) from error
    if os.stat(folder / "key.pem").st_mode & 0o077:
        raise UserError(f"{folder / 'key.pem'} is readable by others; chmod 600 it")
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authority, require_client_auth=True
    )
