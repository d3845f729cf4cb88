"""Metrics: what is counted of calls, what is read at a scrape, and who may ask for it."""

import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from ktan.errors import UserError
from privacy.budget import open_plan
from privacy.ledger import Ledger, PendingAnswer
from teacher_server.health import Health
from teacher_server.observer import Call
from teacher_server.observing import port as operations_port
from teacher_server.observing.gauges import LedgerStanding
from teacher_server.observing.metrics import Metrics
from teacher_server.observing.operations import operations
from teacher_server.observing.port import OperationsPort
from teacher_server.options import ServeOptions

QUERY = Call(
    "/ktan.teacher.v1.TeacherService/Query", "anna", ("client",), "OK", "", 0.03,
    "0c9a2f3e-0000-4000-8000-000000000000", 8, 5, 4000, 17,
)  # fmt: skip
CHARGE = 10**10
LABELS = {"method": QUERY.method, "code": "OK", "reason": ""}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(
        tmp_path / "ledger",
        dataset_id="stand-in",
        plan=open_plan(4.0, 1e-5),
        witness=tmp_path / "elsewhere" / "head.json",
    ) as opened:
        yield opened


def test_a_query_is_counted_once_with_its_samples_and_its_charge(registry):
    metrics = Metrics(registry)
    metrics.called(QUERY)
    metrics.called(replace(QUERY, charged_samples=0, charge=0))
    value = registry.get_sample_value
    assert value("ktan_calls_total", LABELS) == 2
    assert value("ktan_samples_answered_total") == 16
    assert value("ktan_samples_charged_total") == 5
    assert value("ktan_charge_units_total") == 4000
    slower = {"method": QUERY.method, "le": "0.05"}
    assert value("ktan_call_seconds_bucket", slower) == 2
    assert value("ktan_call_seconds_bucket", slower | {"le": "0.02"}) == 0


def test_a_refusal_is_counted_by_its_reason_and_answers_nothing(registry):
    metrics = Metrics(registry)
    refused = replace(QUERY, code="FAILED_PRECONDITION", reason="BUDGET_EXHAUSTED", entry=0)
    metrics.called(refused)
    value = registry.get_sample_value
    assert value("ktan_calls_total", LABELS) is None
    named = LABELS | {"code": refused.code, "reason": refused.reason}
    assert value("ktan_calls_total", named) == 1
    assert value("ktan_samples_answered_total") == 0
    assert value("ktan_charge_units_total") == 0


def test_a_stream_has_no_latency(registry):
    Metrics(registry).called(replace(QUERY, streamed=True, seconds=3600.0))
    assert registry.get_sample_value("ktan_call_seconds_count", {"method": QUERY.method}) is None


def test_batches_settlements_and_what_waits(registry):
    metrics = Metrics(registry)
    metrics.computed(3, 48, 0.02)
    metrics.settled(5, 0.004)
    metrics.waiting(7, 90)
    metrics.waiting(2, 30)
    value = registry.get_sample_value
    assert value("ktan_batch_samples_sum") == 48
    assert value("ktan_batch_seconds_sum") == 0.02
    assert value("ktan_settle_requests_sum") == 5
    assert value("ktan_settle_seconds_sum") == 0.004
    assert (value("ktan_waiting_requests"), value("ktan_waiting_samples")) == (2, 30)


def test_clients_are_named_only_where_asked_and_only_so_many(registry):
    Metrics(registry).called(QUERY)
    assert "anna" not in str(list(registry.collect()))
    named = CollectorRegistry()
    metrics = Metrics(named, clients=2)
    for client in ("anna", "bert", "carl", "dora", "anna", "carl"):
        metrics.called(replace(QUERY, client=client, charge=10))
    spent = {
        sample.labels["client"]: sample.value
        for metric in named.collect()
        for sample in metric.samples
        if sample.name == "ktan_client_charge_units_total"
    }
    assert spent == {"anna": 20, "bert": 10, "others": 30}


def test_the_ledgers_standing_is_read_at_each_scrape(registry, ledger):
    registry.register(LedgerStanding(ledger))
    value = registry.get_sample_value
    before = ledger.budget(None)
    assert value("ktan_ledger_readable") == 1
    assert value("ktan_epsilon_spent") == before.epsilon_spent
    assert value("ktan_epsilon_left") == 4.0 - before.epsilon_spent
    ledger.settle("anna", "1", b"x" * 32, [PendingAnswer(b"k" * 32, CHARGE, 3, b"noise")], "v")
    after = ledger.budget(None)
    assert value("ktan_budget_spent_units") == CHARGE
    assert value("ktan_budget_left_units") == after.left == before.left - CHARGE
    assert value("ktan_epsilon_spent") == after.epsilon_spent > before.epsilon_spent
    assert value("ktan_noise_draws_left") == before.draws_left - 3


def test_a_ledger_that_cannot_be_read_costs_no_other_metric(registry):
    class Gone:
        def budget(self, client: None) -> None:
            raise OSError("a disk is gone")

    registry.register(LedgerStanding(Gone()))
    Metrics(registry).waiting(1, 2)
    assert registry.get_sample_value("ktan_ledger_readable") == 0
    assert registry.get_sample_value("ktan_epsilon_spent") is None
    assert registry.get_sample_value("ktan_waiting_samples") == 2


def ask(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection(*address.rsplit(":", 1), timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[OperationsPort]:
    health = Health({})
    opened = OperationsPort("127.0.0.1:0", registry, health)
    opened.start()
    opened.health = health
    yield opened
    opened.stop()


def test_the_port_tells_metrics_liveness_and_readiness_to_get_alone(port, registry):
    Metrics(registry).called(QUERY)
    status, text = ask(port.address, "/metrics")
    families = {family.name for family in text_string_to_metric_families(text)}
    assert status == 200
    assert {"ktan_calls", "ktan_call_seconds", "ktan_waiting_samples"} <= families
    assert ask(port.address, "/livez") == (200, "alive\n")
    assert ask(port.address, "/readyz") == (503, "not ready: starting\n")
    port.health._say(())
    assert ask(port.address, "/readyz") == (200, "ready\n")
    assert ask(port.address, "/")[0] == 404
    for method in ("POST", "HEAD", "PUT", "DELETE"):
        assert ask(port.address, "/metrics", method)[0] == 405


def test_peers_that_say_nothing_keep_nobody_else_from_asking_for_long(port):
    host, number = port.address.rsplit(":", 1)
    silent = [socket.create_connection((host, int(number))) for _ in range(7)]
    assert ask(port.address, "/livez")[0] == 200
    for connection in silent:
        connection.close()


def test_nor_do_peers_that_say_a_byte_now_and_then(port, monkeypatch):
    monkeypatch.setattr(operations_port, "_CONNECTION_SECONDS", 1.0)
    host, number = port.address.rsplit(":", 1)
    slow = [socket.create_connection((host, int(number)), timeout=60) for _ in range(8)]
    for peer in slow:
        peer.settimeout(0.05)
    # None gets to the end of its request; each is hung up on all the same.
    end, open_ones = time.monotonic() + 60, list(slow)
    while open_ones:
        assert time.monotonic() < end
        open_ones = [peer for peer in open_ones if still_open(peer)]
    while not alive(port):
        assert time.monotonic() < end
    for peer in slow:
        peer.close()


def alive(port: OperationsPort) -> bool:
    try:
        return ask(port.address, "/livez")[0] == 200
    except OSError:
        return False


def still_open(peer: socket.socket) -> bool:
    """Sends one byte more of a request; whether the other side has not hung up."""
    try:
        peer.sendall(b"G")
        return peer.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:1"])
def test_it_listens_on_loopback_unless_told_otherwise(registry, listen):
    with pytest.raises(UserError, match="--metrics-open"):
        OperationsPort(listen, registry, Health({}))


def test_told_otherwise_it_listens_to_all(registry):
    OperationsPort("0.0.0.0:0", registry, Health({}), open_to_others=True).stop()


@pytest.mark.parametrize("listen", ["9464", "127.0.0.1:", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(registry, listen):
    with pytest.raises(UserError, match="HOST:PORT"):
        OperationsPort(listen, registry, Health({}))


def test_a_port_that_is_taken_is_refused(registry, port):
    with pytest.raises(UserError, match="in use"):
        OperationsPort(port.address, registry, Health({}))


def test_what_the_options_ask_for_runs_together_and_ends_together(ledger, tmp_path, certificates):
    options = ServeOptions(
        certs=certificates / "server",
        metrics="127.0.0.1:0",
        request_log=tmp_path / "requests.jsonl",
    )
    with operations(options, ledger, teacher_version="0" * 32, mode="ensemble") as running:
        running.observer.called(QUERY)
        _, text = ask(running.metrics, "/metrics")
        values = {
            sample.name: sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert values["ktan_build_info"].labels["mode"] == "ensemble"
        assert values["ktan_calls_total"].value == 1
        assert values["ktan_ready"].value == 0
        assert values["ktan_request_log_lines_lost_total"].value == 0
        assert values["process_resident_memory_bytes"].value > 0
        pem = (certificates / "server" / "certificate.pem").read_bytes()
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
        assert values["ktan_certificate_expiry_timestamp_seconds"].value == end
    assert len((tmp_path / "requests.jsonl").read_text().splitlines()) == 1
    with pytest.raises(ConnectionRefusedError):
        ask(running.metrics, "/livez")


def test_an_option_that_cannot_be_kept_leaves_nothing_open(ledger, tmp_path):
    options = ServeOptions(
        plaintext=True, request_log=tmp_path / "requests.jsonl", metrics="0.0.0.0:0"
    )
    with (
        pytest.raises(UserError, match="--metrics-open"),
        operations(options, ledger, teacher_version="0" * 32, mode="ensemble"),
    ):
        raise AssertionError("it must not come to that")


def test_what_is_told_is_documented_and_what_is_documented_is_told(ledger, tmp_path, certificates):
    options = ServeOptions(
        certs=certificates / "server",
        metrics="127.0.0.1:0",
        metrics_clients=1,
        request_log=tmp_path / "requests.jsonl",
    )
    with operations(options, ledger, teacher_version="0" * 32, mode="ensemble") as running:
        running.observer.called(QUERY)
        _, text = ask(running.metrics, "/metrics")
    told = set()
    for family in text_string_to_metric_families(text):
        if family.name.startswith("ktan_"):
            told.add(family.name + {"counter": "_total", "info": "_info"}.get(family.type, ""))
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    named = re.findall(r"\bktan_[a-z_]*[a-z]\b(?!…)", text)
    documented = {name.removesuffix("_bucket") for name in named}
    assert documented == {name for name in told if not name.endswith("_created")}
