"""Runs the service: one asyncio loop, mTLS, health, drain.

The model runs in this process, as many batches at once as there are cores, one torch thread each:
oversubscription collapses torch, and a child process costs a copy of every batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_NAME
from grpc_reflection.v1alpha import reflection

from privacy.errors import LedgerFault
from privacy.ledger import Ledger
from protos import teacher_pb2_grpc
from protos.limits import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES
from teacher_server.answering import Answerer
from teacher_server.batching import Batcher, Pace
from teacher_server.desk import Desk
from teacher_server.flooding import channel_options
from teacher_server.guard import Guard
from teacher_server.health import READINESS, Health, HealthService, health_of
from teacher_server.limits import Limits
from teacher_server.listening import Transport, bind
from teacher_server.observer import Observer
from teacher_server.service import AuditService, Described, TeacherService

log = logging.getLogger(__name__)

# For debugging gRPC tells of a server that was never started, with the very object that is being
# freed: a handler that keeps the record keeps what becomes somebody else's memory, until a crash.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.INFO)

_LIMITS_SECONDS: Final = 1.0
_PACE = Pace()
_NOBODY = Observer()


async def serve(
    face: Described,
    answerer: Answerer,
    ledger: Ledger,
    transport: Transport,
    on_ready: Callable[[str], None],
    stop: asyncio.Event,
    *,
    pace: Pace = _PACE,
    observer: Observer = _NOBODY,
    health: Health | None = None,
    limits: Limits | None = None,
) -> None:
    """Serves until `stop` is set, then drains: what was accepted is answered.

    `on_ready` is called with the address that was bound. `limits` are followed while it serves.
    Raises UserError when the address cannot be bound; and LedgerFault, once it has drained, where
    the ledger's fault ended it.
    """
    desk = Desk(transport.max_waiting_samples, gate=limits.admit if limits else None)
    batcher = Batcher(desk, answerer, pace, observer)
    health = health or health_of(ledger)
    health.add_check("workers", lambda: batcher.working)
    faulty = False

    def ledger_failed() -> None:
        nonlocal faulty
        faulty = True
        stop.set()

    guard = Guard(
        plaintext=transport.certificates is None,
        on_ledger_fault=ledger_failed,
        revocations=transport.revocations(),
        observer=observer,
    )
    server = grpc.aio.server(
        interceptors=[guard],
        options=[
            # Two servers on one port would split one client's retries between two ledgers.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
            *channel_options(),
        ],
    )
    teacher_pb2_grpc.add_TeacherServiceServicer_to_server(
        TeacherService(face, ledger, desk, observer), server
    )
    teacher_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(ledger), server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthService(health), server)
    if transport.reflection:
        names = (*READINESS, HEALTH_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    address = bind(server, transport)
    tasks: list[asyncio.Task[None]] = []
    try:
        batcher.start()
        await server.start()
        await health.check()
        tasks = [asyncio.create_task(health.run())]
        if limits is not None:
            tasks.append(asyncio.create_task(_follow(limits, ledger)))
        on_ready(address)
        await stop.wait()
    finally:
        log.info("draining; what was accepted has %g s to end", transport.grace_seconds)
        health.drain()
        desk.draining = True
        await server.stop(transport.grace_seconds)
        # Work whose client has gone still ends: a charge under way becomes durable.
        await asyncio.to_thread(batcher.stop)
        for task in tasks:
            task.cancel()
        log.info("drained")
    if faulty:
        # The ledger knows what stopped it; where it would go on, the fault still ended the service.
        ledger.require_usable()
        raise LedgerFault("the ledger failed while it was served; start the service again")


async def _follow(limits: Limits, ledger: Ledger) -> None:
    """Has a changed file of limits in force within a second or so."""
    while True:
        await asyncio.sleep(_LIMITS_SECONDS)
        await asyncio.to_thread(limits.look, ledger)
