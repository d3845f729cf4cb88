"""Counters and histograms of what happens in a service, for Prometheus.

Everything here is public by DESIGN's rules, and some of it is sensitive: who may see what was
spent, `port.py` decides. Children of labelled metrics are kept, so that a call costs no look-up of
labels; nothing is counted per sample.
"""

from __future__ import annotations

import threading
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from teacher_server.observer import Call, Observer

_CALL_SECONDS: Final = (
    0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_BATCH_SECONDS: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SETTLE_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
_SIZES: Final = tuple(float(2**power) for power in range(11))
_OTHERS: Final = "others"


class Metrics(Observer):
    """Counts into `registry`.

    clients: how many client names become labels of their own, in order of appearance, where the
    rest share one; 0: none, as what each client asks and spends is its own affair.
    """

    def __init__(self, registry: CollectorRegistry, clients: int = 0):
        self._calls = Counter(
            "ktan_calls",
            "Calls that have ended, by gRPC method, status code and reason of refusal.",
            ("method", "code", "reason"),
            registry=registry,
        )
        self._seconds = Histogram(
            "ktan_call_seconds",
            "Time from a call's request to its answer; of unary methods.",
            ("method",),
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self._answered = Counter(
            "ktan_samples_answered", "Samples of answered queries.", registry=registry
        )
        self._charged = Counter(
            "ktan_samples_charged",
            "Samples that were charged, not found stored.",
            registry=registry,
        )
        self._units = Counter(
            "ktan_charge_units", "Charges of answered queries, in μ²·2⁴⁰.", registry=registry
        )
        self._of_client = Counter(
            "ktan_client_charge_units",
            "Charges of answered queries by client, in μ²·2⁴⁰.",
            ("client",),
            registry=registry if clients else None,
        )
        self._waiting_requests = Gauge(
            "ktan_waiting_requests", "Queries that wait for the teacher.", registry=registry
        )
        self._waiting_samples = Gauge(
            "ktan_waiting_samples", "Samples that wait for the teacher.", registry=registry
        )
        self._batch_samples = Histogram(
            "ktan_batch_samples",
            "Samples of the queries that the teacher was given together.",
            buckets=_SIZES,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "ktan_batch_seconds",
            "Time that a batch took at the teacher, release included.",
            buckets=_BATCH_SECONDS,
            registry=registry,
        )
        self._settle_requests = Histogram(
            "ktan_settle_requests",
            "Queries that became durable in one go.",
            buckets=_SIZES[:8],
            registry=registry,
        )
        self._settle_seconds = Histogram(
            "ktan_settle_seconds",
            "Time that the ledger took to make queries durable.",
            buckets=_SETTLE_SECONDS,
            registry=registry,
        )
        self._clients = clients
        self._lock = threading.Lock()
        self._counted: dict[tuple[str, str, str], Counter] = {}
        self._timed: dict[str, Histogram] = {}
        self._named: dict[str, Counter] = {}

    def called(self, call: Call) -> None:
        key = call.method, call.code, call.reason
        counter = self._counted.get(key)
        if counter is None:
            counter = self._counted[key] = self._calls.labels(*key)
        counter.inc()
        if not call.streamed:
            histogram = self._timed.get(call.method)
            if histogram is None:
                histogram = self._timed[call.method] = self._seconds.labels(call.method)
            histogram.observe(call.seconds)
        if call.entry:
            self._answered.inc(call.samples)
            if call.charge:
                self._charged.inc(call.charged_samples)
                self._units.inc(call.charge)
                if self._clients:
                    self._child(call.client).inc(call.charge)

    def computed(self, requests: int, samples: int, seconds: float) -> None:
        self._batch_samples.observe(samples)
        self._batch_seconds.observe(seconds)

    def settled(self, requests: int, seconds: float) -> None:
        self._settle_requests.observe(requests)
        self._settle_seconds.observe(seconds)

    def waiting(self, requests: int, samples: int) -> None:
        self._waiting_requests.set(requests)
        self._waiting_samples.set(samples)

    def _child(self, client: str) -> Counter:
        child = self._named.get(client)
        if child is None:
            with self._lock:
                name = client if len(self._named) < self._clients else _OTHERS
                if name == _OTHERS:
                    # Not kept by the client's own name: names are bounded, clients are not.
                    return self._of_client.labels(_OTHERS)
                child = self._named[client] = self._of_client.labels(name)
        return child
