"""One service, fuzzed from beginning to end, and everything that must still hold after it."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.fuzz.connections import attack, flood, hold
from benchmarks.fuzz.face import SAMPLE_CANARY, TEXT_CANARY
from benchmarks.fuzz.probes import Prober, entries, hostile_spent
from benchmarks.fuzz.shooting import Row, shoot
from benchmarks.fuzz.target import FILES, Target, Use, running

GROWTH_MIB: Final = 64
"""Resident memory that may be added after the warm-up."""
MORE_THREADS: Final = 8
"""gRPC's pool of threads breathes, and lets go of idle ones after a while."""
MORE_FILES: Final = 4
"""So does the ledger's pool of connections to its tables."""
_WARM_UP: Final = 0.2
_HELD_PER: Final = 2000
"""Hostile requests for each slow connection of a kind."""
_PROBES_IN_FLOOD: Final = 10
_SETTLING: Final = 60.0
_FORBIDDEN: Final = ("Traceback", "unforeseen", TEXT_CANARY, SAMPLE_CANARY.decode())
"""What no line of the log may hold: an exception, or anything of a request."""


@dataclass
class Outcome:
    """What one service's campaign showed."""

    table: dict[str, Row] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What did not hold, each in one line; empty: all well."""


async def fuzz(
    folder: Path, seed: int, requests: int, *, rows: bool = False, sockets: bool = True,
    seconds: float = float("inf"),
) -> Outcome:  # fmt: skip
    """Fuzzes a service of byte samples, or of float32 rows, with files in `folder`.

    requests: hostile ones above gRPC. sockets: attacks below gRPC beside them, in proportion.
    """
    _allow_files()
    outcome, rng, began = Outcome(), random.Random(seed), time.monotonic()
    end = began + seconds
    with running(folder, rows=rows) as target:
        async with target.channel("petra") as channel:
            prober = Prober(channel, "float32" if rows else "uint8")
            face = await prober.settle(target, rng)
            lines, asked = await entries(target), prober.asked
            warm_up = max(1, round(requests * _WARM_UP))
            for number, count in enumerate((warm_up, requests - warm_up)):
                if number == 1:
                    before = await _settled(target, None)
                with ExitStack() as stack:
                    tasks = [shoot(target, face, prober, rng, count, end, outcome.table)]
                    if sockets:
                        held = max(1, count // _HELD_PER)
                        await asyncio.to_thread(hold, target, face, held, stack, outcome.table)
                        tasks.append(
                            asyncio.to_thread(
                                attack, target, face, seed + number, count, end, outcome.table
                            )
                        )
                    await asyncio.gather(*tasks)
            if sockets:
                with ExitStack() as stack:
                    await asyncio.to_thread(flood, target, FILES + 100, stack, outcome.table)
                    for _ in range(_PROBES_IN_FLOOD):
                        await prober.probe(rng)
            after = await _settled(target, before)
            await prober.probe(rng)
            spent, hostile = await prober.spent(), await hostile_spent(target)
            added = await entries(target) - lines
            outcome.facts |= {
                "probes": prober.asked,
                "wall_seconds": round(time.monotonic() - began, 1),
                "service_processor_seconds": round(target.seconds(), 1),
                "after_warm_up": asdict(before),
                "at_the_end": asdict(after),
                "entries_added": added,
                "spent": spent,
                "spent_by_the_hostile_client": hostile,
            }
        _judge(outcome, prober, before, after, added - (prober.asked - asked))
        code = target.stop()
        if code != 0:
            outcome.faults.append(f"the service ended with exit code {code}")
        log = target.log.read_text(errors="replace")
    outcome.facts["log_lines"] = len(log.splitlines())
    outcome.faults += [f"the log holds {word!r}" for word in _FORBIDDEN if word in log]
    return outcome


def _judge(outcome: Outcome, prober: Prober, before: Use, after: Use, entries_more: int) -> None:
    faults, facts = outcome.faults, outcome.facts
    for name, row in outcome.table.items():
        if row.wrong:
            faults.append(f"{name}: {row.wrong} wrong, such as {row.examples[0]}")
    faults += sorted({f"a probe: {wrong} was wrong" for wrong in prober.wrong})
    if facts["spent"] != prober.charged or facts["spent_by_the_hostile_client"]:
        faults.append(f"{facts['spent']} units were charged, the probes cost {prober.charged}")
    if entries_more:
        faults.append(f"the ledger has {entries_more} entries more than there were probes")
    grown = (after.resident - before.resident) / 2**20
    if grown > GROWTH_MIB:
        faults.append(f"resident memory grew by {grown:.0f} MiB, more than {GROWTH_MIB}")
    if after.files > before.files + MORE_FILES:
        faults.append(f"{after.files} open files, {before.files} before")
    if after.threads > before.threads + MORE_THREADS:
        faults.append(f"{after.threads} threads, {before.threads} before")


def _is_back(now: Use, before: Use) -> bool:
    return now.files <= before.files + MORE_FILES and now.threads <= before.threads + MORE_THREADS


async def _settled(target: Target, before: Use | None) -> Use:
    """What the service holds once it has let go of connections that are gone."""
    end, last = time.monotonic() + _SETTLING, target.use()
    while time.monotonic() < end:
        await asyncio.sleep(0.5)
        now = target.use()
        if now.files == last.files and (before is None or _is_back(now, before)):
            return now
        last = now
    return last


def _allow_files() -> None:
    """More connections than the service may have files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 4 * FILES:
        most = 4 * FILES if hard == resource.RLIM_INFINITY else min(4 * FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
