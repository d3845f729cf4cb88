"""Durable settlements a second, beside the limit: the same bytes written by bare sqlite3.

    python -m benchmarks.ledger

Each settlement is one request of one or 64 samples with two taps (10 and 8 floats); each is one
durable transaction (WAL, synchronous=FULL) with debit, answers, chained entry, signed receipt,
and the witness file rewritten before it returns.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from privacy.budget import open_plan
from privacy.ledger import Ledger, PendingAnswer

RESULT = Path(__file__).parent / "results" / "ledger.json"
PAYLOADS = (40, 32)
SECONDS = 3.0


def rate(work: Callable[[], None], callers: int) -> float:
    """Calls of `work` a second, over SECONDS, from this many threads."""
    end = time.perf_counter() + SECONDS

    def loop(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            work()
            done += 1
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        total = sum(pool.map(loop, range(callers)))
    return total / (time.perf_counter() - started)


def settle_rate(folder: Path, samples: int, callers: int) -> float:
    plan = open_plan(8.0, 1e-5)
    with Ledger.create(
        folder / "ledger", dataset_id="bench", plan=plan, witness=folder / "witness" / "head.json"
    ) as ledger:

        def work() -> None:
            pending = [
                PendingAnswer(secrets.token_bytes(32), 1, 0, secrets.token_bytes(size))
                for _ in range(samples)
                for size in PAYLOADS
            ]
            ledger.settle("bench", str(uuid.uuid4()), secrets.token_bytes(32), pending, "0" * 32)

        return rate(work, callers)


def sqlite_rate(folder: Path, samples: int) -> float:
    """The limit: one thread, one table, one insert of the same rows per durable commit."""
    connection = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE answers (key BLOB PRIMARY KEY, payload BLOB)")

    def work() -> None:
        rows = [
            (secrets.token_bytes(32), secrets.token_bytes(size))
            for _ in range(samples)
            for size in PAYLOADS
        ]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO answers VALUES (?, ?)", rows)
        connection.execute("COMMIT")

    end, done = time.perf_counter() + SECONDS, 0
    started = time.perf_counter()
    while time.perf_counter() < end:
        work()
        done += 1
    return done / (time.perf_counter() - started)


def main() -> None:
    rows = []
    for samples in (1, 64):
        with tempfile.TemporaryDirectory() as name:
            limit = sqlite_rate(Path(name), samples)
        for callers in (1, 8):
            with tempfile.TemporaryDirectory() as name:
                ours = settle_rate(Path(name), samples, callers)
            rows.append(
                {
                    "samples_per_request": samples,
                    "callers": callers,
                    "settlements_per_second": round(ours),
                    "bare_sqlite_commits_per_second": round(limit),
                    "ratio": round(ours / limit, 3),
                }
            )
    for row in rows:
        print("  ".join(f"{name}={value}" for name, value in row.items()))
    RESULT.write_text(
        json.dumps({"date": time.strftime("%Y-%m-%d"), "rows": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
