"""Traces: a span a call and one a stage, of some calls, with nothing in them that is sensitive."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ktan.errors import UserError
from teacher_server.observer import Call, Stage
from teacher_server.observing.tracing import Traces, collector

BEGAN = 1000.0
QUERY = Call(
    method="/ktan.teacher.v1.TeacherService/Query",
    client="anna",
    roles=("client",),
    code="OK",
    reason="",
    seconds=0.5,
    request_id="0c9a2f3e-0000-4000-8000-000000000000",
    samples=8,
    charged_samples=5,
    charge=987654,
    entry=17,
    began=BEGAN,
    stages=(
        Stage("queue", BEGAN + 0.1, BEGAN + 0.2),
        Stage("batch", BEGAN + 0.2, BEGAN + 0.4),
        Stage("settle", BEGAN + 0.4, BEGAN + 0.45),
    ),
)


def spans_of(*calls: Call, every: int = 1):
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, "1.2", every)
    for call in calls:
        traces.called(call)
    traces.close()
    return exporter.get_finished_spans()


def test_a_query_is_a_span_with_its_stages_below_it():
    spans = {span.name: span for span in spans_of(QUERY)}
    call = spans.pop("ktan.teacher.v1.TeacherService/Query")
    assert list(spans) == ["queue", "batch", "settle"]
    assert {span.parent.span_id for span in spans.values()} == {call.context.span_id}
    assert {span.context.trace_id for span in spans.values()} == {call.context.trace_id}
    assert call.parent is None
    assert call.resource.attributes["service.name"] == "teacher-server"

    def lasts(span):
        return round((span.end_time - span.start_time) / 1e9, 6)

    assert [lasts(span) for span in (call, *spans.values())] == [0.5, 0.1, 0.2, 0.05]
    assert round((spans["queue"].start_time - call.start_time) / 1e9, 6) == 0.1


def test_spans_are_in_the_time_of_the_day():
    now = time.monotonic()
    (span,) = spans_of(replace(QUERY, began=now - 1.0, seconds=1.0, stages=()))
    assert abs(span.end_time / 1e9 - time.time()) < 60


def test_neither_client_nor_charge_is_in_a_trace():
    for span in spans_of(QUERY):
        said = str(dict(span.attributes))
        assert "anna" not in said
        assert "987654" not in said
        assert "charge" not in said
    assert spans_of(QUERY)[-1].attributes["ktan.samples"] == 8


def test_of_many_calls_every_so_manyth_is_traced_and_every_fault():
    plain = replace(QUERY, stages=())
    assert len(spans_of(*[plain] * 20, every=10)) == 2
    refused = replace(plain, code="FAILED_PRECONDITION", reason="BUDGET_EXHAUSTED")
    assert len(spans_of(plain, refused, every=10)) == 1
    failed = replace(plain, code="INTERNAL", reason="LEDGER_FAULT")
    _, fault = spans_of(plain, failed, every=10)
    assert fault.attributes["ktan.reason"] == "LEDGER_FAULT"
    assert not fault.status.is_ok


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:4317", "http://10.0.0.1:4317", "http://localhost", "https://h:99999"]
)
def test_an_endpoint_is_loopback_or_has_tls(endpoint):
    with pytest.raises(UserError, match="--traces"):
        collector(endpoint)


def test_nothing_of_it_is_imported_without_being_asked_for():
    program = (
        "import sys, teacher_server.running, teacher_server.observing.operations\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
