"""Liveness and readiness: what is said of each while checks hold, fail, hang, and in draining."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from grpc_health.v1 import health_pb2

from privacy.budget import open_plan
from privacy.errors import LedgerFault, LedgerRolledBack
from privacy.ledger import Ledger
from teacher_server.health import LIVENESS, READINESS, Health, ledger_usable

PATIENCE = 60.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def statuses(health: Health) -> set[int | None]:
    return {health.status(name) for name in READINESS}


def test_it_is_ready_once_every_check_holds_and_lives_from_the_start():
    async def scenario() -> None:
        health = Health({"ledger": lambda: None})
        health.add_check("workers", lambda: True)
        assert (health.why, statuses(health)) == ("starting", {NOT_SERVING})
        assert health.alive
        await health.check()
        assert health.ready
        assert statuses(health) == {SERVING}
        assert health.status("of.somebody.Else") is None

    run(scenario)


def test_what_does_not_hold_is_named_and_nothing_else_is_said(caplog):
    def broken() -> None:
        raise LedgerFault("secret-of-the-ledger")

    async def scenario() -> None:
        working = True
        health = Health({"ledger": broken, "workers": lambda: working, "fine": lambda: None})
        await health.check()
        assert health.why == "ledger"
        working = False
        await health.check()
        assert health.why == "ledger, workers"
        assert statuses(health) == {NOT_SERVING}
        assert {health.status(name) for name in LIVENESS} == {SERVING}

    with caplog.at_level("DEBUG", "teacher_server.health"):
        run(scenario)
    assert "not ready: ledger, workers" in caplog.text
    assert "secret" not in caplog.text


def test_it_is_ready_again_when_a_check_holds_again():
    async def scenario() -> None:
        holds = False
        health = Health({"ledger": lambda: holds})
        await health.check()
        assert not health.ready
        holds = True
        await health.check()
        assert health.ready

    run(scenario)


def test_a_check_that_hangs_counts_as_failed_and_is_not_begun_again():
    async def scenario() -> None:
        begun, released = [], threading.Event()

        def hangs() -> None:
            begun.append(1)
            assert released.wait(PATIENCE)

        health = Health({"ledger": hangs, "workers": lambda: True}, patience=0.05)
        await health.check()
        await health.check()
        assert (health.why, len(begun)) == ("ledger", 1)
        assert health.alive
        released.set()
        while not health.ready:
            await health.check()
        assert len(begun) == 1

    run(scenario)


def test_draining_is_not_ready_but_alive_whatever_the_checks_say():
    async def scenario() -> None:
        health = Health({})
        await health.check()
        health.drain()
        await health.check()
        assert (health.why, statuses(health)) == ("draining", {NOT_SERVING})
        assert health.status("liveness") == SERVING
        assert health.alive

    run(scenario)


def test_a_watch_is_told_of_each_change_and_ends_with_draining():
    async def scenario() -> None:
        health = Health({})
        seen = []

        async def watch() -> None:
            seen_so_far = health.changes(READINESS[0])
            while (status := await anext(seen_so_far, None)) is not None:
                seen.append(status)

        watching = asyncio.create_task(watch())
        while not seen:
            await asyncio.sleep(0)
        await health.check()
        while len(seen) < 2:
            await asyncio.sleep(0)
        health.drain()
        await watching
        assert seen == [NOT_SERVING, SERVING, NOT_SERVING]

    run(scenario)


def test_an_event_loop_that_stands_still_is_not_alive():
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        health = Health({}, clock=lambda: now)
        running = asyncio.create_task(health.run())
        while not health.ready:
            await asyncio.sleep(0)
        assert health.alive
        # Nothing is awaited: no beat.
        now = 100.0
        assert not health.alive
        # One second later the loop has turned.
        while not health.alive:
            await asyncio.sleep(0.05)
        running.cancel()

    run(scenario)


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(
        tmp_path / "ledger",
        dataset_id="stand-in",
        plan=open_plan(4.0, 1e-5),
        witness=tmp_path / "elsewhere" / "head.json",
    ) as opened:
        yield opened


def test_a_ledger_that_stopped_is_not_usable(ledger):
    check = ledger_usable(ledger)
    check()
    ledger.close()
    with pytest.raises(LedgerFault):
        check()


def test_a_ledger_that_is_not_believed_still_sends_what_is_stored(ledger, tmp_path):
    ledger.close()
    with Ledger.open(tmp_path / "ledger", witness=tmp_path / "lost.json") as exhausted:
        with pytest.raises(LedgerRolledBack):
            exhausted.check("", charge=0, draws=0)
        ledger_usable(exhausted)()
