"""Durable settlements a second, beside the limit: the same answers written by bare sqlite3.

    python -m benchmarks.ledger            (KTAN_TEST_POSTGRESQL names a PostgreSQL database)

Each settlement is one request for one or 64 samples, from one caller or from 64 at once. When it
returns, debit, answers, chained entry and signed receipt are on disk (SQLite, WAL,
synchronous=FULL), and the witness has seen them. Afterwards answers are looked up one by one.

The limit writes the same keys and payloads, and nothing else, in groups as large as the callers.

On PostgreSQL two replicas, processes of their own, settle requests of one sample on one ledger; a
replica alone stands beside them.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from privacy.budget import open_plan
from privacy.ledger import Ledger, PendingAnswer
from privacy.ledger.database import Database

POSTGRESQL = os.environ.get(
    "KTAN_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)
RESULT = Path(__file__).parent / "results" / "ledger.json"
COMMAND = "python -m benchmarks.ledger"
PAYLOAD = 40
"""Bytes of one answer: probabilities of ten classes."""
SECONDS = 3.0
GOALS = {(64, 1): 10_000, (64, 64): 1_500}
"""(callers, samples per request) → requests a second."""
_random = random.Random(os.urandom(32))
"""For keys that never come twice, in any process."""


def run(work: Callable[[], object], callers: int, seconds: float) -> tuple[float, list[float]]:
    """Calls of `work` a second from this many threads, and how long each call took."""
    times: list[list[float]] = [[] for _ in range(callers)]
    start = threading.Barrier(callers + 1)
    end = 0.0

    def loop(mine: list[float]) -> None:
        start.wait()
        before = time.perf_counter()
        while before < end:
            work()
            now = time.perf_counter()
            mine.append(now - before)
            before = now

    threads = [threading.Thread(target=loop, args=(mine,)) for mine in times]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    end = started + seconds
    start.wait()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    return sum(map(len, times)) / took, sorted(chain.from_iterable(times))


def answers(samples: int) -> list[tuple[bytes, bytes]]:
    """Key and payload of so many answers that nobody asked for before."""
    width = 32 + PAYLOAD
    # Not from the system: the call would let other threads in, and cost more than the request.
    drawn = _random.randbytes(samples * width)
    return [
        (drawn[at : at + 32], drawn[at + 32 : at + width]) for at in range(0, len(drawn), width)
    ]


def settle(ledger: Ledger, samples: int) -> list[tuple[bytes, bytes]]:
    """One request for so many new samples; its answers."""
    drawn = answers(samples)
    pending = [PendingAnswer(key, 1, 0, payload) for key, payload in drawn]
    name = str(uuid.UUID(bytes=_random.randbytes(16)))
    ledger.settle("bench", name, _random.randbytes(32), pending, "0" * 32)
    return drawn


def settlements(
    folder: Path, callers: int, samples: int, seconds: float
) -> tuple[float, list[float]]:
    """Settlements a second and their latencies; every caller's last request is found again."""
    last: dict[int, list[tuple[bytes, bytes]]] = {}
    with Ledger.create(
        folder / "ledger",
        dataset_id="bench",
        plan=open_plan(8.0, 1e-5),
        witness=folder / "witness" / "head.json",
    ) as ledger:

        def work() -> None:
            last[threading.get_ident()] = settle(ledger, samples)

        result = run(work, callers, seconds)
        for drawn in last.values():
            for key, payload in drawn:
                if ledger.stored([key]) != {key: payload}:
                    raise AssertionError("a settled answer was not found again")
    return result


def bare_commits(folder: Path, group: int, samples: int, seconds: float) -> float:
    """Requests a second of one thread that writes `group` of them per durable commit."""
    connection = sqlite3.connect(
        folder / "bare.sqlite", isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE answers (key BLOB PRIMARY KEY, payload BLOB)")

    def work() -> None:
        rows = answers(group * samples)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO answers VALUES (?, ?)", rows)
        connection.execute("COMMIT")

    rate, _ = run(work, 1, seconds)
    connection.close()
    return rate * group


def replica(folder: Path, witness: Path, callers: int, seconds: float) -> None:
    """One process that serves a ledger: says when it is ready, begins when told, says its rate."""
    with Ledger.open(folder, witness=witness) as ledger:
        print("ready", flush=True)
        sys.stdin.readline()
        rate, _ = run(lambda: settle(ledger, 1), callers, seconds)
    print(rate, flush=True)


def replicas(url: str, processes: int, callers: int, seconds: float) -> float:
    """Settlements of one sample a second, of so many processes together on one ledger."""
    with tempfile.TemporaryDirectory() as name:
        folder, witness = Path(name) / "ledger", Path(name) / "witness" / "head.json"
        plan = open_plan(8.0, 1e-5)
        Ledger.create(
            folder, dataset_id="bench", plan=plan, witness=witness, database_url=url
        ).close()
        server = Database.of(folder).server
        assert server is not None
        command = [sys.executable, "-m", "benchmarks.ledger", str(folder), str(witness)]
        started = [
            subprocess.Popen(
                [*command, str(callers), str(seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(processes)
        ]
        try:
            for one in started:
                assert one.stdout is not None
                if one.stdout.readline() != "ready\n":
                    raise RuntimeError("a replica did not start")
            for one in started:
                assert one.stdin is not None
                one.stdin.write("go\n")
                one.stdin.flush()
            return sum(float(one.communicate()[0]) for one in started)
        finally:
            for one in started:
                one.kill()
                one.wait()
            server.drop()


def reachable(url: str) -> bool:
    """True when a PostgreSQL server answers there."""
    parts = make_url(url)
    try:
        socket.create_connection((parts.host or "localhost", parts.port or 5432), 5).close()
    except OSError:
        return False
    return True


def measure(seconds: float = SECONDS) -> dict[str, Any]:
    """Rows per number of callers, samples and processes; figures a second, and their ratios.

    postgresql is None where no server answers.
    """
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": COMMAND,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "sqlite": [
            _sqlite(callers, samples, seconds) for samples in (1, 64) for callers in (1, 64)
        ],
        "postgresql": _postgresql(seconds) if reachable(POSTGRESQL) else None,
    }


def _sqlite(callers: int, samples: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        bare = bare_commits(Path(name), callers, samples, seconds)
    with tempfile.TemporaryDirectory() as name:
        rate, times = settlements(Path(name), callers, samples, seconds)
    return {
        "callers": callers,
        "samples_per_request": samples,
        "requests_per_second": round(rate),
        "goal": GOALS.get((callers, samples)),
        "bare_sqlite_requests_per_second": round(bare),
        "ratio": round(rate / bare, 3),
        "p50_ms": round(1e3 * statistics.median(times), 3),
        "p99_ms": round(1e3 * times[int(0.99 * len(times))], 3),
    }


def _postgresql(seconds: float) -> dict[str, Any]:
    one, two = (replicas(POSTGRESQL, processes, 64, seconds) for processes in (1, 2))
    return {
        "callers_per_replica": 64,
        "samples_per_request": 1,
        "one_replica_requests_per_second": round(one),
        "two_replicas_requests_per_second": round(two),
        "goal": 2_000,
        "ratio_two_to_one": round(two / one, 3),
    }


def main() -> None:
    """Prints the table and writes it."""
    measured = measure()
    for row in [*measured["sqlite"], measured["postgresql"] or {"postgresql": "no server"}]:
        print("  ".join(f"{name}={value}" for name, value in row.items() if value is not None))
    RESULT.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        replica(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
