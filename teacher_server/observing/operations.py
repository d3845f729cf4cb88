"""What the options ask for, started together and ended together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector

from ktan.errors import UserError
from privacy.ledger import Ledger
from teacher_server.health import Health, health_of
from teacher_server.observer import Observer, Observers
from teacher_server.observing.gauges import LedgerStanding, LinesLost, ServiceFacts
from teacher_server.observing.metrics import Metrics
from teacher_server.observing.port import OperationsPort
from teacher_server.observing.request_log import RequestLog
from teacher_server.options import ServeOptions


@dataclass(frozen=True)
class Operations:
    """Whom a service tells what happens, its health, and where its metrics are (None: nowhere)."""

    observer: Observer
    health: Health
    metrics: str | None


@contextmanager
def operations(
    options: ServeOptions, ledger: Ledger, *, teacher_version: str, mode: str
) -> Iterator[Operations]:
    """Everything that is asked for, from here to the end of the block.

    In the main thread SIGHUP reopens the request log. Raises UserError, with nothing left
    behind.
    """
    health = health_of(ledger)
    program = version("ktan")
    observers: list[Observer] = []
    with ExitStack() as started:
        requests = None
        if options.request_log is not None:
            requests = RequestLog(options.request_log)
            started.callback(requests.close)
            started.enter_context(_on_hangup(requests))
            observers.append(requests)
        if options.traces is not None:
            observers.append(_traces(options.traces, program, options.trace_every, started))
        port = None
        if options.metrics is not None:
            registry = CollectorRegistry()
            observers.append(Metrics(registry, options.metrics_clients))
            registry.register(LedgerStanding(ledger))
            registry.register(
                ServiceFacts(health, program, teacher_version, mode, options.certificates)
            )
            if requests is not None:
                registry.register(LinesLost(requests))
            ProcessCollector(registry=registry)
            port = OperationsPort(
                options.metrics, registry, health, open_to_others=options.metrics_open
            )
            started.callback(port.stop)
            port.start()
        yield Operations(Observers(observers), health, None if port is None else port.address)


def _traces(endpoint: str, program: str, every: int, started: ExitStack) -> Observer:
    # An extra, and half a second of imports, for those alone who ask for it.
    try:
        from teacher_server.observing.tracing import Traces, collector
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise UserError(
            "--traces needs OpenTelemetry; install ktan with its extra: pip install 'ktan[tracing]'"
        ) from None
    traces = Traces(collector(endpoint), program, every)
    started.callback(traces.close)
    return traces


@contextmanager
def _on_hangup(requests: RequestLog) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda *_: requests.reopen())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
