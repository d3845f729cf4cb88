"""What is looked up at a scrape: the ledger's standing, readiness, the certificate's end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from privacy.ledger import BudgetState, Ledger
from teacher_server.health import Health
from teacher_server.observing.request_log import RequestLog

log = logging.getLogger(__name__)

Spending = Callable[[BudgetState], float]

_STANDING: Final[tuple[tuple[str, str, Spending], ...]] = (
    (
        "ktan_epsilon_spent",
        "ε at the promise's δ of what was answered; all of it in a ledger that is not believed.",
        lambda state: state.epsilon_spent,
    ),
    (
        "ktan_epsilon_left",
        "What remains of the promise's ε.",
        lambda state: state.promise.epsilon - state.epsilon_spent,
    ),
    ("ktan_epsilon_budget", "The promise's ε.", lambda state: state.promise.epsilon),
    ("ktan_delta", "The promise's δ.", lambda state: state.promise.delta),
    ("ktan_budget_units", "The answering budget, in μ²·2⁴⁰.", lambda state: state.budget),
    ("ktan_budget_spent_units", "Charged so far, in μ²·2⁴⁰.", lambda state: state.spent),
    ("ktan_budget_left_units", "Left to charge, in μ²·2⁴⁰.", lambda state: state.left),
    ("ktan_noise_draws_left", "Noise draws left of the plan's.", lambda state: state.draws_left),
    (
        "ktan_ledger_rolled_back",
        "1 where nothing vouches for the ledger and nothing new is answered.",
        lambda state: float(state.rolled_back is not None),
    ),
)


class LedgerStanding(Collector):
    """What is spent and left, read from the ledger at each scrape; replicas all say the same."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        try:
            state: BudgetState | None = self._ledger.budget(None)
        except Exception as error:
            # Whatever it is: the other metrics must still be told.
            log.debug("the ledger cannot be read: %s", type(error).__name__)
            state = None
        yield GaugeMetricFamily(
            "ktan_ledger_readable", "1 where the ledger could be read just now.", state is not None
        )
        if state is not None:
            for name, meaning, spending in _STANDING:
                yield GaugeMetricFamily(name, meaning, spending(state))


class ServiceFacts(Collector):
    """What is served by what, whether it is ready, and until when its certificate is good.

    version: of the program. certificates: the server's folder; None where it has none.
    """

    def __init__(
        self, health: Health, version: str, teacher: str, mode: str, certificates: Path | None
    ):
        self._health = health
        self._build = {"version": version, "teacher_version": teacher, "mode": mode}
        self._certificates = certificates

    def collect(self) -> Iterator[Metric]:
        # A metric of this kind is named ktan_build_info on the wire.
        yield InfoMetricFamily("ktan_build", "Program, teacher and mode.", self._build)
        yield GaugeMetricFamily(
            "ktan_ready", "1 where the service can answer.", float(self._health.ready)
        )
        if self._certificates is not None:
            try:
                end = certificate_end(self._certificates).timestamp()
            except (OSError, ValueError):
                # A file that is being replaced: the next scrape finds it.
                return
            yield GaugeMetricFamily(
                "ktan_certificate_expiry_timestamp_seconds",
                "When the server's certificate ends, in seconds since 1970.",
                end,
            )


class LinesLost(Collector):
    """Lines that the request log could not write."""

    def __init__(self, requests: RequestLog):
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "ktan_request_log_lines_lost",
            "Lines that the request log could not write.",
            self._requests.lost,
        )


def certificate_end(folder: Path) -> datetime:
    """When the certificate in `folder` ends, in UTC. Raises OSError or ValueError."""
    pem = (folder / "certificate.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc
