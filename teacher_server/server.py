"""Runs the service: one asyncio loop, mTLS, health, drain.

The model runs in this process, as many batches at once as there are cores, one torch thread each:
oversubscription collapses torch, and a child process costs a copy of every batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from privacy.ledger import Ledger
from protos import teacher_pb2, teacher_pb2_grpc
from protos.limits import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES
from teacher_server.answering import Answerer
from teacher_server.batching import Batcher, Pace
from teacher_server.desk import Desk
from teacher_server.flooding import channel_options
from teacher_server.guard import Guard
from teacher_server.listening import Transport, bind
from teacher_server.observer import Observer
from teacher_server.service import AuditService, Described, TeacherService

log = logging.getLogger(__name__)

_SERVICES = (
    teacher_pb2.DESCRIPTOR.services_by_name["TeacherService"].full_name,
    teacher_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,
)
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
) -> None:
    """Serves until `stop` is set, then drains: what was accepted is answered.

    `on_ready` is called with the address that was bound. Raises UserError when it cannot be.
    """
    desk = Desk(transport.max_waiting_samples)
    batcher = Batcher(desk, answerer, pace, observer)
    guard = Guard(
        plaintext=transport.certificates is None,
        on_ledger_fault=stop.set,
        revocations=transport.revocations(),
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
        TeacherService(face, ledger, desk), server
    )
    teacher_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(ledger), server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if transport.reflection:
        names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    address = bind(server, transport)
    try:
        batcher.start()
        await server.start()
        for name in ("", *_SERVICES):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        on_ready(address)
        await stop.wait()
    finally:
        log.info("draining")
        desk.draining = True
        await status.enter_graceful_shutdown()
        await server.stop(transport.grace_seconds)
        # Work whose client has gone still ends: a charge under way becomes durable.
        await asyncio.to_thread(batcher.stop)
        log.info("drained")
