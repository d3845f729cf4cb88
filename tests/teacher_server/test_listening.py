"""Where a service cannot listen it says why in its own words, and drains nothing."""

import asyncio
import gc
import logging
import socket

import pytest

from ktan.errors import UserError
from teacher_server.listening import Transport
from teacher_server.server import serve
from tests.teacher_server.running_service import FACE


@pytest.fixture
def refused(caplog: pytest.LogCaptureFixture):
    """Why a service cannot listen on HOST:PORT."""

    def refused(listen: str) -> str:
        async def run() -> None:
            transport = Transport(listen, None, False, 1, 0.0)
            never = asyncio.Event()
            await serve(FACE, None, None, transport, lambda address: never.set(), never)  # type: ignore[arg-type]

        with caplog.at_level(logging.INFO), pytest.raises(UserError) as refusal:
            asyncio.run(run())
        assert "drain" not in caplog.text
        return str(refusal.value)

    return refused


def test_a_port_in_use_is_named(refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        why = refused(f"127.0.0.1:{port}")
    assert why.startswith(f"port {port} is in use")
    assert "GRPC" not in why


@pytest.mark.parametrize(
    "listen", ["50051", "localhost", ":50051", "localhost:", "localhost:66000"]
)
def test_an_address_of_another_form_is_refused(refused, listen: str) -> None:
    assert refused(listen) == f"--listen {listen}: give HOST:PORT, such as 0.0.0.0:50051"


def test_nothing_that_is_freed_is_kept_by_a_log(refused, caplog: pytest.LogCaptureFixture) -> None:
    """A record of a server that gRPC frees would be read after its memory is another's."""
    with caplog.at_level(logging.DEBUG):
        refused("50051")
        gc.collect()
        logging.getLogger("grpc").debug("this is kept")
    said = [record.msg for record in caplog.records]
    assert said[-1] == "this is kept"
    assert not [line for line in said if "__dealloc__" in line]
