"""An answer that its caller does not read counts as its own until the call has ended."""

import itertools
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest

from benchmarks.fuzz import frames
from protos import Reason, teacher_pb2
from tests.teacher_server.running_service import Service, images, query
from tests.teacher_server.test_service import PATIENCE, refusal

PATH = "/ktan.teacher.v1.TeacherService/Query"
FULL = "too many samples of this client are waiting; retry later"
NO_WINDOW = struct.pack(">HI", 4, 0)


@contextmanager
def unread(
    service: Service, request: teacher_pb2.QueryRequest, timeout: str
) -> Iterator[Callable[[], None]]:
    """Makes a call of anna's on a connection that takes no byte of any answer."""
    folder = service.certificates / "anna"
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    host, port = service.address.split(":")
    with (
        socket.create_connection((host, int(port))) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(frames.opening(NO_WINDOW) + frames.frame(frames.SETTINGS, 1, 0))
        header = frames.block(frames.call(PATH, timeout=timeout))
        message = frames.message(request.SerializeToString())
        streams = itertools.count(1, 2)

        def call() -> None:
            stream = next(streams)
            connection.sendall(
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream, header)
                + frames.frame(frames.DATA, frames.END_STREAM, stream, message)
            )

        yield call


def until(
    service: Service,
    request: teacher_pb2.QueryRequest,
    words: str | None,
    before_each: Callable[[], None] = lambda: None,
) -> None:
    """Asks until the service refuses by these words; None: until it answers."""
    stub, end = service.stub("anna"), time.monotonic() + PATIENCE
    while True:
        said = None
        before_each()
        try:
            stub.Query(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            said = error.details()
        if said == words:
            return
        assert time.monotonic() < end, said


@pytest.mark.parametrize(("timeout", "closed"), [("500S", True), ("10S", False)])
def test_what_is_not_read_fills_its_callers_share_and_nobody_elses(service, timeout, closed):
    request = query(images(8))
    service.stub("anna").Query(request, timeout=PATIENCE)
    # Of room for 64 samples one client gets 48. A call that came while the other connection's took
    # some of it was refused: another follows.
    with unread(service, request, timeout) as call:
        until(service, request, FULL, before_each=call)
        assert refusal(service.stub("anna").Query, request)[1] == Reason.OVERLOADED
        service.stub("bert").Query(query(images(8)), timeout=PATIENCE)
        if not closed:
            until(service, request, None)
    until(service, request, None)
