"""Calls as OpenTelemetry traces: a span a call, and one below it for each stage of a query.

    ktan.teacher.v1.TeacherService/Query
    ├── queue     waits for the teacher
    ├── batch     at the teacher, together with others
    └── settle    made durable, together with others

Spans are made when a call has ended, of one call in so many. They hold what is public and not
sensitive: neither client nor charge. What callers say of their own traces is not taken over: who
asks must not choose what is recorded here. This module needs the extra `tracing`, and is imported
by nobody who was not asked for traces.
"""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from ktan.errors import UserError
from protos.channel import is_loopback
from teacher_server.observer import Call, Observer

_NANOSECONDS: Final = 10**9


class Traces(Observer):
    """Hands spans to `exporter` from a thread of its own, until `close`.

    every: of so many calls the first is traced, and each that ended in an error of the service.
    version: of the program.
    """

    def __init__(self, exporter: SpanExporter, version: str, every: int):
        resource = Resource.create({"service.name": "teacher-server", "service.version": version})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("teacher_server", version)
        self._every = every
        self._passed = 0

    def called(self, call: Call) -> None:
        self._passed -= 1
        if self._passed >= 0 and call.code not in _FAULTS:
            return
        if self._passed < 0:
            self._passed = self._every - 1
        # The clock that a call is timed by has another beginning.
        shift = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            call.method.removeprefix("/"),
            kind=SpanKind.SERVER,
            start_time=shift + int(call.began * _NANOSECONDS),
            attributes=_attributes(call),
        )
        if call.code in _FAULTS:
            span.set_status(Status(StatusCode.ERROR))
        self._stages(call, span, shift)
        span.end(shift + int((call.began + call.seconds) * _NANOSECONDS))

    def _stages(self, call: Call, span: Span, shift: int) -> None:
        if not call.stages:
            return
        below = set_span_in_context(span)
        for stage in call.stages:
            part = self._tracer.start_span(
                stage.name, context=below, start_time=shift + int(stage.began * _NANOSECONDS)
            )
            part.end(shift + int(stage.ended * _NANOSECONDS))

    def close(self) -> None:
        """Sends what waits, where somebody takes it."""
        self._provider.shutdown()


_FAULTS: Final = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS"})


def _attributes(call: Call) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "rpc.system": "grpc",
        "rpc.method": call.method.removeprefix("/"),
        "rpc.response.status_code": call.code,
    }
    if call.reason:
        attributes["ktan.reason"] = call.reason
    if call.request_id:
        attributes["ktan.request_id"] = call.request_id
    if call.samples:
        attributes["ktan.samples"] = call.samples
    return attributes


def collector(endpoint: str) -> SpanExporter:
    """Sends spans by OTLP over gRPC to `endpoint`: https://HOST:PORT, or http:// on loopback.

    Raises UserError for any other address.
    """
    address = urlsplit(endpoint)
    try:
        host, port = address.hostname, address.port
    except ValueError:
        host, port = None, None
    if address.scheme not in ("http", "https") or not host or port is None:
        raise UserError(
            f"--traces {endpoint}: give http://127.0.0.1:4317, or https://HOST:PORT of a collector"
        )
    if address.scheme == "http" and not is_loopback(host):
        raise UserError(
            f"--traces {endpoint}: without TLS to this machine only; use https, or a collector here"
        )
    return OTLPSpanExporter(endpoint=endpoint, insecure=address.scheme == "http")
