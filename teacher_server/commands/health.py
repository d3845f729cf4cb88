"""`teacher-server health`: one question to a running service, for probes; no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import grpc
from cyclopts import Parameter
from grpc_health.v1 import health_pb2, health_pb2_grpc

from teacher_server.commands.asking import asking, require_unreachable
from teacher_server.health import LIVENESS, READINESS

# Not from `commands.options`, which brings the whole service: probes start every few seconds.
Flag = Annotated[bool, Parameter(negative="")]


def health(
    address: str,
    *,
    certs: Path | None = None,
    plaintext: Flag = False,
    live: Flag = False,
    timeout: float = 5.0,
) -> None:
    """Ask a running service whether it can answer: exit code 0 if so, 1 if not.

    Parameters
    ----------
    address
        HOST:PORT of the service.
    certs
        Folder with ca.pem, certificate.pem and key.pem of any client or auditor.
    plaintext
        No TLS; for a service on this machine that was started so.
    live
        Ask only whether the process lives; it does while it drains, or its ledger is away.
    timeout
        Seconds to wait for an answer.
    """
    service = LIVENESS[0] if live else READINESS[0]
    with asking(address, certs, plaintext) as channel:
        serving, said = ask(channel, service, timeout)
    print(said)
    sys.exit(0 if serving else 1)


def ask(channel: grpc.Channel, service: str, timeout: float) -> tuple[bool, str]:
    """Whether `service` is served, and in words. Raises UserError where the caller is refused."""
    request = health_pb2.HealthCheckRequest(service=service)
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
    except grpc.RpcError as error:
        require_unreachable(error)
        return False, "not reachable"
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return serving, "serving" if serving else "not serving"
