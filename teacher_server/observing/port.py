"""A port for those who run the service: /metrics, /livez and /readyz over plain HTTP, GET only.

What was spent is sensitive, and nobody is asked who they are: on loopback unless its owner says
otherwise. A few threads of its own; what is asked here never waits for the service, nor it for
what is asked here.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ktan.errors import UserError
from protos.channel import is_loopback
from teacher_server.health import Health

_AT_ONCE: Final = 8
"""Connections served at once; more are closed unanswered."""
_CONNECTION_SECONDS: Final = 5.0
"""For a whole connection: one that sends a byte now and then must not keep probes from asking."""
_PLAIN: Final = "text/plain; charset=utf-8"


class OperationsPort:
    """Listens on HOST:PORT from `start` to `stop`; port 0 takes a free one.

    open_to_others: lets an address that is not loopback be named. Raises UserError for an address
    that is malformed, taken, or not loopback.
    """

    def __init__(
        self,
        listen: str,
        registry: CollectorRegistry,
        health: Health,
        *,
        open_to_others: bool = False,
    ):
        host, port = _address(listen)
        if not open_to_others and not is_loopback(host):
            raise UserError(
                f"--metrics {listen} is not loopback, and what is spent is nobody else's to read: "
                "listen on 127.0.0.1, or say --metrics-open where a firewall says who may ask"
            )

        class Handler(_Handler):
            pass

        Handler.registry, Handler.health = registry, health
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            kind = type("Server", (_Server,), {"address_family": family})
            self._server: _Server = kind(address[:2], Handler)
        except socket.gaierror:
            raise UserError(
                f"--metrics: {host} is no name or address that this machine knows"
            ) from None
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            why = "it is in use" if in_use else os.strerror(error.errno or 0)
            raise UserError(f"--metrics {listen}: cannot listen there ({why})") from None
        name = f"[{host}]" if ":" in host else host
        self.address = f"{name}:{self._server.server_address[1]}"
        """HOST:PORT, with the port that it got."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stops to listen; what is being answered ends by itself."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._room = threading.BoundedSemaphore(_AT_ONCE)

    def server_bind(self) -> None:
        # The parent's looks up this host's name, which may take seconds and is never used.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(_CONNECTION_SECONDS, _hang_up, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away, or sent nonsense, is no news."""


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    health: Health

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, encode(self.registry), kind)
        elif path == "/livez":
            self._say(self.health.alive, "alive", "the event loop stands still")
        elif path == "/readyz":
            ready = self.health.ready
            self._say(ready, "ready", f"not ready: {self.health.why}")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /livez, /readyz\n", _PLAIN)

    def _refuse(self) -> None:
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n", _PLAIN)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse  # noqa: N815

    def _say(self, holds: bool, yes: str, no: str) -> None:
        status = HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, f"{yes if holds else no}\n".encode(), _PLAIN)

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        # Also where a body was sent that nobody read.
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """What the Server header says: not which Python runs here."""
        return "teacher-server"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are no news."""


def _hang_up(connection: socket.socket) -> None:
    # It may have ended just now. Whoever reads from it or writes to it is let go.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _address(listen: str) -> tuple[str, int]:
    host, colon, number = listen.rpartition(":")
    if not (host and colon and number.isascii() and number.isdigit() and int(number) < 2**16):
        raise UserError(f"--metrics {listen}: give HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]"), int(number)
