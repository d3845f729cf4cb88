"""A channel to a service: addresses, certificates, retries, each setting with its reason.

What every caller of the services needs, whoever it is: the student's client and the auditor.
"""

import datetime
import ipaddress
import json
import re
import stat
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509

from protos.limits import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_FILES: Final = ("ca.pem", "certificate.pem", "key.pem")

_RETRY: Final = {
    "methodConfig": [
        {
            "name": [
                {"service": "ktan.teacher.v1.TeacherService"},
                {"service": "ktan.teacher.v1.AuditService"},
            ],
            "retryPolicy": {
                # For a hiccup; a caller that waits out a restart asks again by itself. Where the
                # service says how long to wait (grpc-retry-pushback-ms), that holds instead.
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


class ChannelError(ValueError):
    """A channel that cannot be opened as it was asked for: a mistake in the call or its files."""


def open_channel(address: str, certs: Path | None, *, plaintext: bool = False) -> grpc.Channel:
    """A channel to `address` (HOST:PORT); nothing is sent before the first call.

    certs: folder with ca.pem, certificate.pem and key.pem, as the service's custodian issued it.
    plaintext: no TLS; towards this very machine only.

    Raises ChannelError for a malformed address, plaintext to another machine, both or neither way
    of connecting, and a certificate folder that is incomplete or whose key others may read.
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
    if is_loopback(host):
        # gRPC would otherwise send even loopback calls to the proxy that the environment names.
        options.append(("grpc.enable_http_proxy", 0))
    if plaintext:
        if certs is not None:
            raise ChannelError("give --certs or --plaintext, not both")
        if not is_loopback(host):
            raise ChannelError(
                f"--plaintext is for a service on this machine, and {host} is not: "
                "anybody between could read and change what it says; use --certs DIR"
            )
        return grpc.insecure_channel(address, options)
    if certs is None:
        raise ChannelError(
            f"{address} asks for a client certificate: give its folder with --certs DIR "
            "(made by `teacher-server certs`), or --plaintext for a loopback service without TLS"
        )
    return grpc.secure_channel(address, _credentials(certs), options)


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of HOST:PORT, brackets of IPv6 removed. Raises ChannelError."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ChannelError(f"'{address}' is no address; write HOST:PORT, such as 127.0.0.1:50051")
    return match[1].strip("[]"), int(match[2])


def is_loopback(host: str) -> bool:
    """True for this machine's own interface, by address or by its usual name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(folder: Path) -> grpc.ChannelCredentials:
    if not folder.is_dir():
        raise ChannelError(f"--certs {folder}: there is no such folder")
    contents = {}
    for name in _FILES:
        try:
            contents[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            raise ChannelError(
                f"--certs {folder} holds no {name}; it needs ca.pem, certificate.pem and key.pem "
                "as `teacher-server certs` wrote them"
            ) from None
        except OSError as error:
            raise ChannelError(
                f"--certs: {folder / name} cannot be read: {error.strerror}"
            ) from None
    key = folder / "key.pem"
    if stat.S_IMODE(key.stat().st_mode) & 0o077:
        raise ChannelError(f"{key} can be read by others on this machine; run: chmod 600 {key}")
    try:
        expiry = x509.load_pem_x509_certificate(contents["certificate.pem"]).not_valid_after_utc
    except ValueError as error:
        raise ChannelError(f"{folder / 'certificate.pem'} is no certificate: {error}") from error
    if expiry <= datetime.datetime.now(datetime.UTC):
        raise ChannelError(
            f"the certificate in {folder} expired on {expiry:%Y-%m-%d}; ask the service's "
            "custodian for a new one by `teacher-server certs`"
        )
    return grpc.ssl_channel_credentials(
        contents["ca.pem"], contents["key.pem"], contents["certificate.pem"]
    )
