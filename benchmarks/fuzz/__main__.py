"""Hostile requests against the running service, 100,000 of them and more.

    python -m benchmarks.fuzz [--requests 100000] [--seed 1] [--seconds 3600]   (make bench-fuzz)

`teacher-server rehearse` runs with mTLS and a durable ledger, a second service takes float32 rows.
Prints, for each kind, how many there were, what was answered and what of it was wrong; keeps it all
in results/fuzz.json. Ends with exit code 1 where anything was not as it must be. Read in
docs/fuzzing.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.fuzz.campaign import GROWTH_MIB, Outcome, fuzz

RESULT: Final = Path(__file__).parents[1] / "results" / "fuzz.json"
COMMAND: Final = "python -m benchmarks.fuzz"
ROWS: Final = 0.15
"""Part of the requests that go to the service of float32 rows."""


async def campaigns(folder: Path, requests: int, seed: int, seconds: float) -> dict[str, Outcome]:
    """Both services, one after the other."""
    rows = round(requests * ROWS)
    of_bytes = await fuzz(folder / "bytes", seed, requests - rows, seconds=seconds * (1 - ROWS))
    of_rows = await fuzz(
        folder / "rows", seed + 1, rows, rows=True, sockets=False, seconds=seconds * ROWS
    )
    return {"uint8 samples": of_bytes, "float32 rows": of_rows}


def show(name: str, outcome: Outcome) -> None:
    """One service's table."""
    print(f"\n{name}\n{'kind':<32}{'number':>8}{'wrong':>7}  answered by")
    for kind, row in outcome.table.items():
        statuses = ", ".join(f"{status} {n:,}" for status, n in row.statuses.most_common())
        print(f"{kind:<32}{row.statuses.total():>8,}{row.wrong:>7}  {statuses}")
    print("\n".join(f"  {key}: {value}" for key, value in outcome.facts.items()))
    print("\n".join(f"  WRONG: {fault}" for fault in outcome.faults) or "  nothing wrong")


def record(outcomes: dict[str, Outcome], arguments: argparse.Namespace) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"{COMMAND} --requests {arguments.requests} --seed {arguments.seed}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}; shared with the fuzzer "
        "and with other work",
        "memory_bound_mib": GROWTH_MIB,
        "services": {
            name: {
                "kinds": {
                    kind: {"number": row.statuses.total(), "wrong": row.wrong, **row.statuses}
                    for kind, row in outcome.table.items()
                },
                "faults": outcome.faults,
                **outcome.facts,
            }
            for name, outcome in outcomes.items()
        },
    }


def main() -> int:
    """The exit code: 0 where all held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000, help="hostile requests over gRPC")
    parser.add_argument("--seed", type=int, default=1, help="of what is sent")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no request begins later")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = asyncio.run(
            campaigns(Path(folder), arguments.requests, arguments.seed, arguments.seconds)
        )
    for name, outcome in outcomes.items():
        show(name, outcome)
    kept = record(outcomes, arguments)
    RESULT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(outcome.faults for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
