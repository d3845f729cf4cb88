"""What ends a service, and what only refuses a caller."""

import asyncio
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from privacy.budget import open_plan
from privacy.errors import LedgerFault, LedgerRolledBack, LedgerUnreachable
from privacy.ledger import Ledger, Look
from privacy.noise import DEFAULT_NOISE, source
from protos import teacher_pb2, teacher_pb2_grpc
from teacher_server.answering import Answer, Answerer, Question
from teacher_server.listening import Transport
from teacher_server.server import serve
from tests.teacher_server.running_service import CHARGE, FACE, MENU, StandInTeacher, images, query


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(
        tmp_path / "ledger",
        dataset_id="stand-in",
        plan=open_plan(4.0, 1e-5),
        witness=tmp_path / "elsewhere" / "head.json",
    ) as ledger:
        yield ledger


def test_a_look_that_fails_refuses_its_caller_and_the_service_goes_on(service, monkeypatch) -> None:
    stub, first = service.stub(), query(images(1))
    before = stub.Query(first, timeout=60)

    def unreadable(*statement: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as patch:
        patch.setattr(service.ledger._engine.dialect, "do_execute", unreadable)
        for call in (
            lambda: stub.GetBudget(teacher_pb2.GetBudgetRequest(), timeout=60),
            lambda: stub.Query(first, timeout=60),
            lambda: stub.Query(query(images(1, seed=1)), timeout=60),
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                call()
            assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "nothing was charged" in refusal.value.details()
    assert stub.Query(first, timeout=60).receipt == before.receipt
    assert stub.Query(query(images(1, seed=1)), timeout=60).charged_samples == 1
    assert service.spent == 2 * CHARGE


def test_of_a_batch_only_those_concerned_are_refused(ledger, monkeypatch) -> None:
    """One asks for an answer that another replica wrote and that cannot be known to be witnessed;
    of one the transaction finds no database."""
    answerer = Answerer(StandInTeacher(), "0" * 32, MENU, ledger, source(DEFAULT_NOISE))
    names = [str(uuid.uuid4()) for _ in range(3)]
    asked = [Question("anna", name, images(1, seed)) for seed, name in enumerate(names)]
    stored_all, settle_all = Look.stored_all, ledger.settle_all

    def one_unseen(look: Look, keys: Sequence[Sequence[bytes]]) -> list[object]:
        return [
            LedgerRolledBack(0, "entry 7 was written by another replica"),
            *stored_all(look, keys)[1:],
        ]

    def one_unreachable(requests: Sequence[Any]) -> list[object]:
        return [LedgerUnreachable("nothing was charged"), *settle_all(requests[1:])]

    monkeypatch.setattr(Look, "stored_all", one_unseen)
    monkeypatch.setattr(ledger, "settle_all", one_unreachable)
    outcomes = answerer.settle([answerer.draw(asked)])
    assert [type(outcome) for outcome in outcomes] == [LedgerRolledBack, LedgerUnreachable, Answer]
    assert ledger.budget().spent == CHARGE
    assert [entry.request_id for entry in ledger.entries(1)] == names[2:]


def test_a_service_that_a_fault_ended_says_so_though_its_ledger_would_go_on(
    ledger, monkeypatch
) -> None:
    with ThreadPoolExecutor(1) as pool:

        def fails(requests: object) -> object:
            raise LedgerFault("secret-of-the-ledger")

        monkeypatch.setattr(ledger, "settle_all", fails)

        def ask(address: str) -> grpc.StatusCode:
            with grpc.insecure_channel(address) as channel:
                stub = teacher_pb2_grpc.TeacherServiceStub(channel)
                with pytest.raises(grpc.RpcError) as refusal:
                    stub.Query(query(images(1)), timeout=60)
                return refusal.value.code()

        answerer = Answerer(StandInTeacher(), "0" * 32, MENU, ledger, source(DEFAULT_NOISE))
        transport = Transport("127.0.0.1:0", None, False, 64, 5.0)

        asked: list[Future[grpc.StatusCode]] = []

        async def until_it_ends() -> None:
            def on_ready(address: str) -> None:
                asked.append(pool.submit(ask, address))

            await serve(FACE, answerer, ledger, transport, on_ready, asyncio.Event())

        with pytest.raises(LedgerFault, match="start the service again"):
            asyncio.run(until_it_ends())
        assert asked[0].result() == grpc.StatusCode.INTERNAL
        ledger.require_usable()
