"""`teacher-server status`: how a service stands, on one screen; no torch.

Three sources, each with what the others cannot know: the service itself, its metrics port, and, on
its host, the ledger's folder.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509

from ktan.errors import UserError
from privacy.promise import Adjacency, Promise
from protos import teacher_pb2, teacher_pb2_grpc
from protos.channel import host_and_port
from teacher_server.commands.asking import asking, require_unreachable
from teacher_server.commands.health import Flag, ask
from teacher_server.commands.screen import print_facts
from teacher_server.health import READINESS

_SECONDS: Final = 10.0
_UNITS: Final = "units (μ²·2⁴⁰)"


def status(
    address: str | None = None,
    *,
    certs: Path | None = None,
    plaintext: Flag = False,
    metrics: str | None = None,
    ledger: Path | None = None,
    witness: Path | None = None,
    json: Flag = False,
) -> None:
    """Say how a service stands, on one screen: exit code 0 if it is ready, 1 if not.

    Parameters
    ----------
    address
        HOST:PORT of the service: readiness, teacher, promise, what is spent, its certificate's end.
    certs
        Folder with ca.pem, certificate.pem and key.pem of any client or auditor.
    plaintext
        No TLS; for a service on this machine that was started so.
    metrics
        HOST:PORT of its metrics port: why it is not ready, version, uptime, what waits.
    ledger
        The ledger's folder, on the service's host: what each client was charged.
    witness
        The ledger's witness file, if it has moved.
    json
        Print one JSON object.
    """
    if address is None and metrics is None and ledger is None:
        raise UserError(
            "say what to ask: the service's HOST:PORT with --certs, --metrics HOST:PORT, or "
            "--ledger DIR on its host"
        )
    facts: dict[str, Any] = {}
    if ledger is not None:
        facts |= _of_ledger(ledger, witness)
    if metrics is not None:
        facts |= _of_metrics(metrics)
    if address is not None:
        facts |= _of_service(address, certs, plaintext)
    print_facts(facts if json else _worded(facts), json)
    sys.exit(0 if facts["ready"] else 1)


def _of_service(address: str, certs: Path | None, plaintext: bool) -> dict[str, Any]:
    with asking(address, certs, plaintext) as channel:
        ready, said = ask(channel, READINESS[0], _SECONDS)
        facts: dict[str, Any] = {"ready": ready, "service": said}
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        try:
            face = stub.Describe(teacher_pb2.DescribeRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            # Not ready, and said so: a draining service, or one whose ledger is away.
            if ready:
                require_unreachable(error)
            return facts | {"ready": False}
    promise = Promise(
        face.promise.epsilon,
        face.promise.delta,
        Adjacency(face.promise.adjacency),
        face.promise.unit,
    )
    facts |= {
        "mode": face.mode,
        "teacher_version": face.teacher_version,
        "ledger": face.ledger_id,
        "promise": promise.sentence(),
        "epsilon_spent": face.budget.epsilon_spent,
        "epsilon_budget": face.budget.epsilon_budget,
        "units_spent": face.budget.spent,
        "units_budget": face.budget.budget,
        "units_left": face.budget.left,
        "draws_left": face.budget.draws_left,
    }
    if certs is not None:
        facts["certificate_expires"] = _certificate_end(address, certs)
    return facts


def _certificate_end(address: str, certs: Path) -> str | None:
    """When the server's certificate ends; gRPC does not tell."""
    host, port = host_and_port(address)
    context = ssl.create_default_context(cafile=str(certs / "ca.pem"))
    context.load_cert_chain(certs / "certificate.pem", certs / "key.pem")
    context.set_alpn_protocols(["h2"])
    with (
        suppress(OSError),
        socket.create_connection((host, port), timeout=_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
        if shown is not None:
            return _moment(x509.load_der_x509_certificate(shown).not_valid_after_utc)
    return None


def _of_metrics(address: str) -> dict[str, Any]:
    from prometheus_client.parser import text_string_to_metric_families

    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise UserError(f"--metrics {address}: give HOST:PORT, such as 127.0.0.1:9464")
    place = host.strip("[]"), int(port)
    try:
        code, why = _get(*place, "/readyz")
        _, text = _get(*place, "/metrics")
        read = {
            sample.name: (sample.value, sample.labels)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return {"ready": False, "service": f"its metrics are not reachable ({reason})"}
    except ValueError:
        raise UserError(f"--metrics {address}: what answers there is no metrics port") from None
    facts: dict[str, Any] = {"ready": code == http.client.OK, "service": why.strip()}
    if "ktan_build_info" in read:
        built = read["ktan_build_info"][1]
        facts |= {name: built[name] for name in ("version", "mode", "teacher_version")}
    if "process_start_time_seconds" in read:
        started = read["process_start_time_seconds"][0]
        facts["uptime_seconds"] = round(time.time() - started, 1)
    for name, metric in (
        ("waiting_requests", "ktan_waiting_requests"),
        ("waiting_samples", "ktan_waiting_samples"),
        ("request_log_lines_lost", "ktan_request_log_lines_lost_total"),
    ):
        if metric in read:
            facts[name] = int(read[metric][0])
    for name, metric in (
        ("epsilon_spent", "ktan_epsilon_spent"),
        ("epsilon_budget", "ktan_epsilon_budget"),
    ):
        if metric in read:
            facts[name] = read[metric][0]
    if "ktan_noise_draws_left" in read:
        facts["draws_left"] = int(read["ktan_noise_draws_left"][0])
    if "ktan_certificate_expiry_timestamp_seconds" in read:
        end = read["ktan_certificate_expiry_timestamp_seconds"][0]
        facts["certificate_expires"] = _moment(datetime.fromtimestamp(end, UTC))
    return facts


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8")
    finally:
        connection.close()


def _of_ledger(folder: Path, witness: Path | None) -> dict[str, Any]:
    # A database's library, and a second of imports, for those alone who name a ledger.
    from teacher_server.opening import reopen_ledger

    with reopen_ledger(folder, witness, read_only=True) as ledger:
        state = ledger.budget(None)
        names = sorted({entry.client for entry in ledger.entries() if entry.client})
        of_client = {name: ledger.budget(name) for name in names}
        return {
            "ready": state.rolled_back is None,
            "service": "not asked",
            "ledger": ledger.ledger_id,
            "ledger_takes_charges": state.rolled_back is None,
            **({"nothing_new": state.rolled_back} if state.rolled_back else {}),
            "promise": state.promise.sentence(),
            "epsilon_spent": state.epsilon_spent,
            "epsilon_budget": state.promise.epsilon,
            "units_spent": state.spent,
            "units_budget": state.budget,
            "units_left": state.left,
            "draws_left": state.draws_left,
            "clients": {
                name: {"units_spent": own.client_spent, "units_cap": own.cap}
                for name, own in of_client.items()
            },
        }


def _worded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a person: units beside numbers, and what they are relative to."""
    worded: dict[str, Any] = {"ready": "yes" if facts["ready"] else "NO"}
    worded |= {name: value for name, value in facts.items() if name not in _IN_WORDS}
    if "epsilon_spent" in facts:
        spent, budget = facts["epsilon_spent"], facts["epsilon_budget"]
        worded["spent"] = f"ε = {spent:.4g} of {budget:.4g}, {max(0.0, budget - spent):.4g} left"
    if "units_spent" in facts:
        share = 100.0 * facts["units_spent"] / (facts["units_budget"] or 1)
        worded["answers"] = f"{facts['units_spent']:,} {_UNITS} charged ({share:.1f}%)"
    if "draws_left" in facts:
        worded["noise_draws_left"] = facts["draws_left"]
    if "uptime_seconds" in facts:
        worded["uptime"] = _duration(facts["uptime_seconds"])
    if "waiting_samples" in facts:
        requests, samples = facts["waiting_requests"], facts["waiting_samples"]
        worded["waiting"] = f"{requests:,} requests of {samples:,} samples"
    if facts.get("certificate_expires"):
        end = datetime.fromisoformat(facts["certificate_expires"])
        days = (end - datetime.now(UTC)).days
        worded["certificate"] = f"ends {end:%Y-%m-%d}, in {days} days"
    if "clients" in facts:
        worded["clients"] = {
            name: f"{own['units_spent']:,} units"
            + ("" if own["units_cap"] is None else f" of a cap of {own['units_cap']:,}")
            for name, own in facts["clients"].items()
        }
    return worded


_IN_WORDS: Final = frozenset(
    {
        "ready", "epsilon_spent", "epsilon_budget", "units_spent", "units_budget", "units_left",
        "draws_left", "uptime_seconds", "waiting_requests", "waiting_samples",
        "certificate_expires", "clients", "ledger_takes_charges",
    }
)  # fmt: skip


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    return f"{days} days {hours:02d}:{minutes:02d} h" if days else f"{hours}:{minutes:02d} h"
