"""Two services on two hosts and one PostgreSQL ledger: one budget, one chain, one answer a sample.

Real processes over real calls. Each host has a copy of the ledger's folder; what they share is the
database and the witness's file.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import grpc
import pytest

from benchmarks.faults.books import REHEARSED, price, read_books
from benchmarks.faults.database import OwnDatabase, own_database
from benchmarks.faults.scenarios import killed_replica
from benchmarks.faults.servers import zygote
from benchmarks.faults.stage import Stage, stage
from benchmarks.faults.stream import plaintext, query, told
from privacy.ledger import Ledger
from protos import teacher_pb2, teacher_pb2_grpc

PATIENCE = 90.0


@pytest.fixture(scope="module")
def database(postgresql: str) -> Iterator[OwnDatabase]:
    with own_database(postgresql) as found:
        yield found


@pytest.fixture(scope="module")
def forking(postgresql: str) -> Iterator[subprocess.Popen[str]]:
    with zygote() as process:
        yield process


@pytest.fixture
def two(tmp_path, database, forking) -> Iterator[Stage]:
    """Two replicas that nobody asks by himself."""
    with stage(tmp_path, hosts=2, database_url=database.url, forking=forking, clients=0) as found:
        yield found


class Client:
    """Asks the replicas of a stage, and has what it hears kept there."""

    def __init__(self, scene: Stage) -> None:
        self._scene = scene
        self._stubs = [
            teacher_pb2_grpc.TeacherServiceStub(plaintext(scene.addresses[host]))
            for host in range(len(scene.hosts))
        ]

    def ask(
        self, host: int, serials: list[int], request_id: str | None = None
    ) -> teacher_pb2.QueryResponse:
        request_id = request_id or str(uuid.uuid4())
        response = self._stubs[host].Query(query(request_id, serials), timeout=PATIENCE)
        self._scene.heard.note(request_id, serials, response)
        return response


def test_a_request_at_both_at_once_is_charged_once_and_a_sample_of_one_is_free_at_the_other(
    two: Stage, tmp_path: Path
) -> None:
    client, together = Client(two), Barrier(2)

    def ask(host: int, serials: list[int], request_id: str) -> teacher_pb2.QueryResponse:
        together.wait(PATIENCE)
        return client.ask(host, serials, request_id)

    with ThreadPoolExecutor(2) as pool:
        for first in range(0, 60, 3):
            request_id, serials = str(uuid.uuid4()), [first, first + 1, first + 2]
            calls = [pool.submit(ask, host, serials, request_id) for host in (0, 1)]
            one, other = (call.result() for call in calls)
            assert one.answers == other.answers
            assert one.receipt == other.receipt
            # Whichever settled it: the other one found it settled.
            assert sorted((one.charged_samples, other.charged_samples)) == [0, 3]
    for first in range(100, 130, 3):
        serials = [first, first + 1, first + 2]
        asked, same = client.ask(first % 2, serials), client.ask(1 - first % 2, serials)
        assert asked.charged_samples == 3
        assert same.charged_samples == 0
        assert asked.answers == same.answers
        assert asked.receipt != same.receipt

    books = two.finish()
    assert books.broken == ()
    assert books.spent == 90 * price(REHEARSED)
    # Either host's copy of the folder is the ledger.
    assert read_books(two.hosts[1], two.witness, two.heard).broken == ()
    verify_by_command(two, tmp_path)


def verify_by_command(scene: Stage, folder: Path) -> None:
    """The log exported on one host, with the receipts of both, as an auditor gets them."""
    log, receipts = folder / "log.jsonl", folder / "receipts.jsonl"
    with Ledger.open(scene.hosts[1], witness=scene.witness, read_only=True) as ledger:
        ledger.export(log)
    held = [receipt for found in scene.heard.receipts.values() for receipt in found]
    receipts.write_bytes(b"".join(receipt + b"\n" for receipt in held))
    done = subprocess.run(
        [
            sys.executable, "-m", "privacy.audit.cli", "ledger", log, "--receipts", receipts,
            "--head", scene.witness, "--json",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["receipts"] == len(held) > 40


def test_clients_of_both_spend_the_budget_to_its_end_and_no_further(
    tmp_path, database, forking
) -> None:
    rehearsed = replace(REHEARSED, unlimited=False, radius=110_000)
    affordable = rehearsed.ledger_plan.answer_units // price(rehearsed)
    assert 50 < affordable < 80
    with stage(
        tmp_path, hosts=2, database_url=database.url, forking=forking, clients=0,
        rehearsed=rehearsed,
    ) as two:  # fmt: skip
        client = Client(two)

        def ask_until_refused(number: int) -> str:
            for place in range(1000):
                try:
                    client.ask((number + place) % 2, [1000 * number + place])
                except grpc.RpcError as refusal:
                    return told(refusal)
            return "never"

        with ThreadPoolExecutor(6) as pool:
            ends = set(pool.map(ask_until_refused, range(6)))
        assert ends == {"FAILED_PRECONDITION BUDGET_EXHAUSTED"}
        assert len(two.heard.answers) == affordable
        # What was paid for stays free, at both, when nothing is left.
        assert two.finish().broken == ()


def test_one_is_killed_under_load_and_its_clients_go_on_with_the_other(
    tmp_path, database, forking, chance
) -> None:
    with stage(
        tmp_path, hosts=2, database_url=database.url, forking=forking, clients=3, chance=chance
    ) as two:
        killed_replica(two, requests=40)
        books = two.finish()
    assert books.broken == ()
    assert books.answers > 120
    # They did ask the dead one.
    assert two.heard.refusals["UNAVAILABLE"] > 0
