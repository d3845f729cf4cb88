"""A service as a process with everything that is told turned on, from its start to its drain."""

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from protos import teacher_pb2, teacher_pb2_grpc, to_message
from teacher_server.health import READINESS

PATIENCE = 120.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen]:
    words = [
        *("--ledger", tmp_path / "ledger", "--plaintext", "--listen", "127.0.0.1:0"),
        *("--tap", "hint:4:1", "--metrics", "127.0.0.1:0", "--log-format", "json"),
        *("--request-log", tmp_path / "requests.jsonl", "--json"),
    ]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "teacher_server.rehearsal", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as started,
    ):
        yield started
        started.kill()


def get(address: str, path: str) -> tuple[int, str]:
    connection = HTTPConnection(*address.rsplit(":", 1), timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_what_happens_is_told_and_a_drain_ends_well(process, tmp_path):
    facts = json.loads(process.stdout.readline())
    requests = tmp_path / "requests.jsonl"
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(facts["listening"], options) as channel:
        assert get(facts["metrics"], "/readyz") == (200, "ready\n")
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        face = stub.Describe(teacher_pb2.DescribeRequest(), timeout=PATIENCE)
        samples = np.arange(2 * np.prod(face.input_shape), dtype=np.uint8)
        query = teacher_pb2.QueryRequest(
            request_id=str(uuid.uuid4()),
            samples=[to_message("samples", samples.reshape(2, *face.input_shape))],
        )
        for _ in range(2):
            answer = stub.Query(query, timeout=PATIENCE)
        _, text = get(facts["metrics"], "/metrics")
        told = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        receipt = json.loads(answer.receipt)
        queried = "/ktan.teacher.v1.TeacherService/Query"
        assert told["ktan_calls_total", "", queried, "OK"] == 2
        assert told["ktan_samples_answered_total",] == 4
        assert told["ktan_samples_charged_total",] == 2
        assert told["ktan_charge_units_total",] == receipt["charge"] > 0
        assert told["ktan_budget_spent_units",] == receipt["spent"]
        assert told["ktan_settle_requests_sum",] == 2

        eventually(lambda: requests.read_text().count('"status":"OK"') == 3)
        requests.rename(tmp_path / "requests.1")
        process.send_signal(signal.SIGHUP)
        eventually(requests.exists)

        seen = []
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=READINESS[0]), timeout=PATIENCE
        )
        watching = threading.Thread(target=lambda: [seen.append(one.status) for one in watch])
        watching.start()
        eventually(lambda: seen == [SERVING])
        stub.Query(query, timeout=PATIENCE)
        eventually(lambda: requests.read_text().count("Query") == 1)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        watching.join(PATIENCE)
        assert seen == [SERVING, NOT_SERVING]
    assert process.wait(PATIENCE) == 0
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    messages = [line["message"] for line in said]
    assert messages[0] == "ready"
    assert messages[-1] == "drained"
    assert any(message.startswith("draining") for message in messages)
    assert {line["level"] for line in said} == {"INFO"}
