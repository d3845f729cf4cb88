"""What the guard tells of calls: each once, by whom, with which end, whatever its kind."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from privacy.errors import BudgetExhausted
from protos import teacher_pb2, teacher_pb2_grpc
from teacher_server.guard import Guard
from teacher_server.health import READINESS, Health, HealthService
from teacher_server.identity import LOOPBACK
from teacher_server.observer import Call, Observer, Observers, notes

PATIENCE = 60.0
_SERVICE = "/ktan.teacher.v1.TeacherService"


class Kept(Observer):
    def __init__(self) -> None:
        self.calls: list[Call] = []

    def called(self, call: Call) -> None:
        self.calls.append(call)

    async def one(self) -> Call:
        end = time.monotonic() + PATIENCE
        while not self.calls:
            assert time.monotonic() < end, "nothing was told"
            await asyncio.sleep(0.01)
        return self.calls.pop()


class Service(teacher_pb2_grpc.TeacherServiceServicer, teacher_pb2_grpc.AuditServiceServicer):
    """Answers a query by what its request id names."""

    async def Describe(self, request, context):
        return teacher_pb2.DescribeResponse()

    async def Query(self, request, context):
        noted = notes()
        noted.request_id = request.request_id
        match request.request_id:
            case "refused":
                raise BudgetExhausted(5, 2, "the ledger's answering budget")
            case "broken":
                raise ZeroDivisionError("secret")
            case "slow":
                await asyncio.sleep(PATIENCE)
        noted.samples, noted.charged_samples, noted.charge, noted.entry = 8, 5, 4000, 17
        noted.stage("queue", 1.0, 2.0)
        return teacher_pb2.QueryResponse()

    async def ListEntries(self, request, context):
        yield teacher_pb2.ListEntriesResponse()


def serve(scenario: Callable[[grpc.aio.Channel, Kept], Awaitable[None]]) -> None:
    async def run() -> None:
        kept = Kept()
        guard = Guard(plaintext=True, on_ledger_fault=lambda: None, observer=kept)
        server = grpc.aio.server(interceptors=[guard])
        teacher_pb2_grpc.add_TeacherServiceServicer_to_server(Service(), server)
        teacher_pb2_grpc.add_AuditServiceServicer_to_server(Service(), server)
        health = Health({})
        health_pb2_grpc.add_HealthServicer_to_server(HealthService(health), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        options = [("grpc.enable_http_proxy", 0)]
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
                await scenario(channel, kept)
        finally:
            await server.stop(0)

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE))


def query(name: str) -> teacher_pb2.QueryRequest:
    return teacher_pb2.QueryRequest(request_id=name)


def test_a_query_that_was_answered_is_told_with_its_charge():
    async def scenario(channel: grpc.aio.Channel, kept: Kept) -> None:
        before = time.monotonic()
        await teacher_pb2_grpc.TeacherServiceStub(channel).Query(query("fine"), timeout=PATIENCE)
        call = await kept.one()
        assert (call.method, call.code, call.reason) == (f"{_SERVICE}/Query", "OK", "")
        assert (call.client, set(call.roles)) == (LOOPBACK.name, set(LOOPBACK.roles))
        assert (call.request_id, call.samples, call.charged_samples) == ("fine", 8, 5)
        assert (call.charge, call.entry) == (4000, 17)
        assert before <= call.began <= call.began + call.seconds <= time.monotonic()
        assert [stage.name for stage in call.stages] == ["queue"]
        assert not call.streamed
        # Nothing of one call is in the next.
        await teacher_pb2_grpc.TeacherServiceStub(channel).Describe(
            teacher_pb2.DescribeRequest(), timeout=PATIENCE
        )
        call = await kept.one()
        assert (call.method, call.request_id, call.samples) == (f"{_SERVICE}/Describe", "", 0)

    serve(scenario)


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("refused", "FAILED_PRECONDITION", "BUDGET_EXHAUSTED"),
        ("broken", "INTERNAL", "UNFORESEEN"),
    ],
)
def test_a_refusal_is_told_by_status_and_reason(name, code, reason):
    async def scenario(channel: grpc.aio.Channel, kept: Kept) -> None:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            await stub.Query(query(name), timeout=PATIENCE)
        call = await kept.one()
        assert (call.code, call.reason, call.request_id, call.entry) == (code, reason, name, 0)
        assert "secret" not in str(call)

    serve(scenario)


def test_somebody_listens_where_one_of_several_does():
    assert not Observer().listens
    assert not Observers([]).listens
    assert not Observers([Observer(), Observers([])]).listens
    assert Observers([Observer(), Observers([Kept()])]).listens


def test_each_method_is_guarded_once():
    """Its handler is made at its first call, and none for what is no method."""
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        for name in ("/one", "/other")
    }
    guard, looked_up = Guard(plaintext=True, on_ledger_fault=lambda: None), []

    async def registered(details):
        looked_up.append(details.method)
        return handlers.get(details.method)

    async def run() -> None:
        found = {
            name: [
                await guard.intercept_service(registered, SimpleNamespace(method=name))
                for _ in range(2)
            ]
            for name in ("/one", "/other", "/none")
        }
        assert found.pop("/none") == [None, None]
        assert all(first is again for first, again in found.values())
        assert found["/one"][0] is not found["/other"][0]
        assert looked_up == ["/one", "/other", "/none", "/none"]

    asyncio.run(run())


def test_a_call_that_is_not_let_in_is_told_too():
    async def scenario(channel: grpc.aio.Channel, kept: Kept) -> None:
        with pytest.raises(grpc.RpcError):
            await teacher_pb2_grpc.TeacherServiceStub(channel).Query(query("fine"))
        call = await kept.one()
        assert (call.code, call.reason) == ("INVALID_ARGUMENT", "DEADLINE_REQUIRED")
        assert call.client == LOOPBACK.name

    serve(scenario)


def test_a_caller_that_goes_away_is_told_as_cancelled():
    async def scenario(channel: grpc.aio.Channel, kept: Kept) -> None:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            await stub.Query(query("slow"), timeout=0.5)
        call = await kept.one()
        assert (call.code, call.reason, call.request_id) == ("CANCELLED", "", "slow")
        assert 0.0 < call.seconds < PATIENCE

    serve(scenario)


def test_streams_are_told_when_they_end():
    async def scenario(channel: grpc.aio.Channel, kept: Kept) -> None:
        stream = teacher_pb2_grpc.AuditServiceStub(channel).ListEntries(
            teacher_pb2.ListEntriesRequest(), timeout=PATIENCE
        )
        assert len([message async for message in stream]) == 1
        call = await kept.one()
        assert (call.method, call.code) == ("/ktan.teacher.v1.AuditService/ListEntries", "OK")
        assert call.streamed

    serve(scenario)


def test_a_watch_that_is_left_is_told_and_an_unknown_service_is_said_to_be_one():
    async def scenario(channel: grpc.aio.Channel, kept: Kept) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        watch: AsyncIterator = stub.Watch(health_pb2.HealthCheckRequest(service=READINESS[0]))
        first = await anext(aiter(watch))
        assert first.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert kept.calls == []
        watch.cancel()
        call = await kept.one()
        assert (call.method, call.code) == ("/grpc.health.v1.Health/Watch", "CANCELLED")
        with pytest.raises(grpc.RpcError) as unknown:
            await stub.Check(health_pb2.HealthCheckRequest(service="else"), timeout=PATIENCE)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        assert (await kept.one()).code == "NOT_FOUND"

    serve(scenario)
