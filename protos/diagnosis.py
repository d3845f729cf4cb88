"""Why no connection comes about: one handshake by hand, where gRPC only says UNAVAILABLE.

gRPC reports the last of the addresses that it tried, in words that change between versions, and a
refused client certificate as a closed socket. Python's own TLS names each case.
"""

import socket
import ssl
import time
from pathlib import Path
from typing import Final

from protos.channel import host_and_port

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""What an HTTP/2 client says first, with empty settings (RFC 9113, section 3.4)."""
_TLS_ALERT: Final = 0x15
_SECONDS: Final = 3.0
_PAUSE: Final = 0.2


def lasting_fault(address: str, certs: Path | None) -> str | None:
    """What is wrong, with what to do about it, when no retry can help; None when one may.

    certs: the folder that the channel was opened with, None for plaintext.
    Takes a few seconds at most and sends nothing but a handshake.
    """
    try:
        first = _fault(address, certs)
        if first is None:
            return None
        # A server that stops just now can look like one that refuses; it will not do so twice.
        time.sleep(_PAUSE)
        return _fault(address, certs)
    except socket.gaierror:
        return "there is no such host"
    except OSError:
        return None


def _fault(address: str, certs: Path | None) -> str | None:
    host, port = host_and_port(address)
    with socket.create_connection((host, port), timeout=_SECONDS) as connected:
        if certs is None:
            return _plaintext_fault(connected)
        return _tls_fault(connected, host, certs)


def _plaintext_fault(connected: socket.socket) -> str | None:
    expects_tls = "it expects TLS; use --certs DIR instead of --plaintext"
    try:
        connected.sendall(_PREFACE)
        first = connected.recv(1)
    except TimeoutError:
        return None
    except ConnectionError:
        return expects_tls
    return expects_tls if not first or first[0] == _TLS_ALERT else None


def _tls_fault(connected: socket.socket, host: str, certs: Path) -> str | None:
    context = ssl.create_default_context(cafile=str(certs / "ca.pem"))
    context.load_cert_chain(certs / "certificate.pem", certs / "key.pem")
    context.set_alpn_protocols(["h2"])
    refused = (
        f"it does not accept the client certificate in {certs} (from another authority, or "
        "from one that it trusts no longer); ask its custodian for one by `teacher-server certs`"
    )
    try:
        with context.wrap_socket(connected, server_hostname=host) as secured:
            # Under TLS 1.3 the server judges our certificate after our side is done. It refuses by
            # an alert, or like gRPC by closing; otherwise its HTTP/2 settings come.
            return None if secured.recv(1) else refused
    except TimeoutError:
        return None
    except ssl.SSLCertVerificationError as error:
        if "mismatch" in error.verify_message:
            return (
                f"its certificate is not for {host}; use a name that was given to "
                "`teacher-server certs --server-name`"
            )
        return (
            f"its certificate is not to be trusted ({error.verify_message}); use the ca.pem that "
            "came from this service's custodian"
        )
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):
            return refused
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return "it does not speak TLS; if it was started with --plaintext, use --plaintext"
        return None
