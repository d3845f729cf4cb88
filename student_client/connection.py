"""A channel to a teacher service: certificates, retries and limits, each with its reason."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509

from ktan.errors import UserError

MAX_REQUEST_BYTES: Final = 8 * 2**20
MAX_RESPONSE_BYTES: Final = 4 * 2**20

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

_RETRY: Final = {
    "methodConfig": [
        {
            "name": [{"service": "ktan.teacher.v1.TeacherService"}],
            "retryPolicy": {
                # For a hiccup; `patience` covers a restart.
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                # Nothing else passes by itself, and a request with an id may be sent twice.
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@dataclass(frozen=True)
class Connection:
    """How to reach the service."""

    certs: Path | None = None
    """Folder with ca.pem, certificate.pem and key.pem, as the teacher's custodian issued it."""
    plaintext: bool = False
    """No TLS: for a service on this machine that was itself started with --plaintext."""
    deadline: float = 120.0
    """Seconds to wait for one call."""
    patience: float = 60.0
    """Seconds to go on asking while the service is overloaded, restarting or out of reach."""


def open_channel(address: str, connection: Connection) -> grpc.Channel:
    """A channel to `address` (HOST:PORT); nothing is sent before the first call.

    Raises UserError for a malformed address, plaintext to another machine, both or neither way of
    connecting, and a certificate folder that is incomplete or whose key others may read.
    """
    host, _ = host_and_port(address)
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(_RETRY)),
        # A request above the default buffer of 256 KiB is silently never retried.
        ("grpc.per_rpc_retry_buffer_size", 2 * MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
        # The default waits from one second up to two minutes before it connects again.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if _is_loopback(host):
        # gRPC would otherwise send even loopback calls to the proxy that the environment names.
        options.append(("grpc.enable_http_proxy", 0))
    if connection.deadline <= 0:
        raise UserError(f"--deadline is {connection.deadline:g}; it must be above 0 seconds")
    if connection.plaintext:
        if connection.certs is not None:
            raise UserError("give --certs or --plaintext, not both")
        if not _is_loopback(host):
            raise UserError(
                f"--plaintext is for a service on this machine, and {host} is not: "
                "anybody between could read and change the answers; use --certs DIR"
            )
        return grpc.insecure_channel(address, options)
    if connection.certs is None:
        raise UserError(
            f"{address} asks for a client certificate: give its folder with --certs DIR "
            "(made by `teacher-server certs`), or --plaintext for a loopback service without TLS"
        )
    return grpc.secure_channel(address, _credentials(connection.certs), options)


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of HOST:PORT, brackets of IPv6 removed. Raises UserError."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise UserError(f"'{address}' is no address; write HOST:PORT, such as 127.0.0.1:50051")
    return match[1].strip("[]"), int(match[2])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(folder: Path) -> grpc.ChannelCredentials:
    if not folder.is_dir():
        raise UserError(f"--certs {folder}: there is no such folder")
    contents = {}
    for name in ("ca.pem", "certificate.pem", "key.pem"):
        try:
            contents[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"--certs {folder} holds no {name}; a client needs ca.pem, certificate.pem and "
                "key.pem as `teacher-server certs --client NAME` wrote them"
            ) from None
        except OSError as error:
            raise UserError(f"--certs: {folder / name} cannot be read: {error.strerror}") from None
    key = folder / "key.pem"
    if stat.S_IMODE(key.stat().st_mode) & 0o077:
        raise UserError(f"{key} can be read by others on this machine; run: chmod 600 {key}")
    try:
        expiry = x509.load_pem_x509_certificate(contents["certificate.pem"]).not_valid_after_utc
    except ValueError as error:
        raise UserError(f"{folder / 'certificate.pem'} is no certificate: {error}") from error
    if expiry <= datetime.datetime.now(datetime.UTC):
        raise UserError(
            f"the certificate in {folder} expired on {expiry:%Y-%m-%d}; ask the service's "
            "custodian for a new one by `teacher-server certs --client NAME`"
        )
    return grpc.ssl_channel_credentials(
        contents["ca.pem"], contents["key.pem"], contents["certificate.pem"]
    )
