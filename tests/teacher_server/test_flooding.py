"""Connections never take the files that the ledger needs; the fuzzer floods a real service."""

import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from benchmarks.fuzz import frames
from protos.limits import LONGEST_SECONDS
from teacher_server import flooding
from teacher_server.flooding import channel_options

PATIENCE = 60.0


@pytest.mark.parametrize(
    ("files", "most"),
    [(256, 128), (1024, 512), (1_048_576, 1000), (resource.RLIM_INFINITY, 1000)],
)
def test_connections_take_half_of_the_files_at_most(monkeypatch, files, most):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, resource.RLIM_INFINITY))
    assert dict(channel_options())["grpc.max_allowed_incoming_connections"] == most


@contextmanager
def connection(calls: int) -> Iterator[socket.socket]:
    """To a server of these options, with so many calls open that never end by themselves."""
    server = grpc.server(ThreadPoolExecutor(2), options=channel_options())
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(frames.opening() + frames.frame(frames.SETTINGS, 1, 0))
            header = frames.block(frames.call("/grpc.health.v1.Health/Watch", timeout=None))
            for number in range(calls):
                client.sendall(
                    frames.frame(frames.HEADERS, frames.END_HEADERS, 1 + 2 * number, header)
                    + frames.frame(
                        frames.DATA, frames.END_STREAM, 1 + 2 * number, frames.message(b"")
                    )
                )
            yield client
    finally:
        server.stop(0)


def closed(client: socket.socket) -> bool:
    """Whether the server closes it, sooner than the socket's patience ends."""
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_a_connection_that_asks_nothing_is_closed(monkeypatch):
    monkeypatch.setattr(flooding, "_IDLE_MILLISECONDS", 200)
    with connection(calls=0) as client:
        assert closed(client)


def test_an_old_connection_is_closed_whatever_it_holds_open(monkeypatch):
    monkeypatch.setattr(flooding, "_AGE_MILLISECONDS", 200)
    monkeypatch.setattr(flooding, "_GRACE_MILLISECONDS", 200)
    with connection(calls=1) as client:
        assert closed(client)


def test_a_call_under_way_has_the_longest_deadline_to_end():
    assert dict(channel_options())["grpc.max_connection_age_grace_ms"] >= 1000 * LONGEST_SECONDS
