"""gRPC's own retries wait as long as the service says, and no longer than the call may last."""

import time
from concurrent import futures

import grpc
import pytest
from grpc_status import rpc_status

from protos import Reason, teacher_pb2, teacher_pb2_grpc
from protos.channel import open_channel
from protos.limits import MAX_REQUEST_BYTES
from teacher_server.errors import Unavailable, status_of
from teacher_server.pushback import KEY, with_pushback

DEADLINE = 120.0
OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_REQUEST_BYTES)]


def _told(seconds, remaining=DEADLINE):
    status = rpc_status.to_status(status_of(Unavailable(Reason.OVERLOADED, "full", seconds or 0)))
    found = with_pushback(status, seconds, remaining)
    # The details with the reason stay.
    assert set(status.trailing_metadata) <= set(found.trailing_metadata)
    return dict(found.trailing_metadata).get(KEY)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, None), (0.7, "700"), (0.0001, "1"), (0.0, "1"), (10.0, "10000"), (10.1, "-1")],
)
def test_what_is_told(seconds, told):
    assert _told(seconds) == told
    assert _told(seconds, None) == told


def test_who_cannot_wait_so_long_is_told_to_give_up():
    assert _told(2.0, 2.1) == "2000"
    assert _told(2.0, 1.9) == "-1"


class _Busy(teacher_pb2_grpc.TeacherServiceServicer):
    """Unavailable so many times, with this hint, to both methods."""

    def __init__(self, times, seconds):
        self.left, self.seconds = times, seconds
        self.came = []

    def GetBudget(self, request, context):
        self.refuse(context)
        return teacher_pb2.GetBudgetResponse()

    def Query(self, request, context):
        self.refuse(context)
        return teacher_pb2.QueryResponse(receipt=request.samples[0].data[-4:])

    def refuse(self, context):
        self.came.append(time.monotonic())
        if len(self.came) <= self.left:
            status = rpc_status.to_status(
                status_of(Unavailable(Reason.OVERLOADED, "full", self.seconds))
            )
            context.abort_with_status(with_pushback(status, self.seconds, context.time_remaining()))


@pytest.fixture
def ask():
    """Asks a service once, with all that the channel does by itself."""
    stack = []

    def run(busy, query=None):
        server = grpc.server(futures.ThreadPoolExecutor(2), options=OPTIONS)
        teacher_pb2_grpc.add_TeacherServiceServicer_to_server(busy, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        channel = open_channel(f"127.0.0.1:{port}", None, plaintext=True)
        stack.extend([channel.close, lambda: server.stop(None)])
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        if query is not None:
            return stub.Query(query, timeout=DEADLINE)
        return stub.GetBudget(teacher_pb2.GetBudgetRequest(), timeout=DEADLINE)

    yield run
    for close in stack:
        close()


def test_grpc_waits_as_told_and_goes_on(ask):
    busy = _Busy(3, 0.4)
    ask(busy)
    first, second, third, fourth = busy.came
    # Its own backoff would be over after 0.12, 0.24 and 0.48 seconds at the latest.
    assert min(second - first, third - second, fourth - third) >= 0.39


def test_grpc_gives_up_at_once_where_it_is_told_to(ask):
    busy = _Busy(99, 30.0)
    with pytest.raises(grpc.RpcError) as caught:
        ask(busy)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert len(busy.came) == 1


def test_a_request_of_millions_of_bytes_is_sent_again_too(ask):
    """gRPC keeps 256 KiB of a request for its retries, unless it is told otherwise."""
    data = bytes(4 * 2**20) + b"last"
    busy = _Busy(2, 0.01)
    query = teacher_pb2.QueryRequest(samples=[teacher_pb2.Tensor(name="samples", data=data)])
    assert ask(busy, query).receipt == b"last"
    assert len(busy.came) == 3
