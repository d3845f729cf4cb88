"""A ledger's log over the wire, with the auditor's certificate.

Nothing of what comes is believed: the lines are those of an exported log, and are verified as such.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc

from privacy.errors import PrivacyError
from protos import teacher_pb2, teacher_pb2_grpc
from protos.channel import ChannelError, open_channel
from protos.diagnosis import lasting_fault


@dataclass(frozen=True)
class Connection:
    """How to reach a service, where the log is named by the service's address."""

    certs: Path | None = None
    """Folder with ca.pem, certificate.pem and key.pem, as `teacher-server certs --auditor NAME`
    made it."""
    plaintext: bool = False
    """No TLS: for a service on this machine that was itself started with --plaintext."""
    deadline: float = 120.0
    """Seconds to wait for the whole log."""


def fetch_lines(address: str, connection: Connection, first: int = 0) -> list[bytes]:
    """Header, entries from number `first` on, and signed head, as the service at `address` has
    them now.

    Raises PrivacyError, with what to do, when the service cannot be reached or refuses.
    """
    if connection.deadline <= 0:
        raise PrivacyError(f"--deadline is {connection.deadline:g}; it must be above 0 seconds")
    try:
        channel = open_channel(address, connection.certs, plaintext=connection.plaintext)
    except ChannelError as error:
        raise PrivacyError(str(error)) from None
    request = teacher_pb2.ListEntriesRequest(first=first)
    with channel:
        stub = teacher_pb2_grpc.AuditServiceStub(channel)
        try:
            stream = stub.ListEntries(request, timeout=connection.deadline)
            return [line for response in stream for line in response.lines]
        except grpc.RpcError as error:
            raise PrivacyError(_explain(error, address, connection)) from None


def _explain(error: grpc.RpcError, address: str, connection: Connection) -> str:
    code, text = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            fault = lasting_fault(address, connection.certs)
            if fault is not None:
                return f"{address}: {fault}"
            # gRPC's text ends in the system's own words, such as "Connection refused".
            cause = text.rsplit(": ", 1)[-1].rstrip("])") or "no connection"
            return f"no service answers at {address} ({cause}); is it running?"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                f"{address} did not send its whole log within {connection.deadline:g} seconds; "
                "raise --deadline"
            )
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            return (
                f"{address} does not let this certificate read the log ({text}); ask its custodian "
                "for one by `teacher-server certs --auditor NAME`, and give its folder with --certs"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"{address} is a gRPC server, but none that keeps a ledger"
        case _:
            return f"{address}: {code.name}: {text}"
