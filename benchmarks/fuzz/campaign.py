"""One service, fuzzed from beginning to end, and everything that must still hold after it."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Awaitable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from benchmarks.fuzz.connections import attack, flood, hold
from benchmarks.fuzz.face import SAMPLE_CANARY, TEXT_CANARY, Face
from benchmarks.fuzz.probes import Prober, entries, hostile_spent
from benchmarks.fuzz.shooting import Row, shoot
from benchmarks.fuzz.target import FILES, Target, Use, running

GROWTH_MIB: Final = 64
"""Resident memory that may be added after the warm-up."""
MORE_THREADS: Final = 12
"""gRPC's pool of threads breathes, and lets go of idle ones after a while."""
MORE_FILES: Final = 2
"""A connection of the fuzzer's own may just be opening."""
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
    outcome = Outcome()
    with running(folder, rows=rows) as target:
        try:
            async with target.channel("petra") as channel:
                prober = Prober(channel, "float32" if rows else "uint8")
                campaign = _Campaign(target, prober, outcome, seed, time.monotonic() + seconds)
                await campaign.run(requests, sockets)
        except* (grpc.aio.AioRpcError, OSError) as errors:
            for error in errors.exceptions:
                outcome.faults.append(f"a valid request came to nothing: {_plainly(error)}")
        for name, row in outcome.table.items():
            if row.wrong:
                outcome.faults.append(f"{name}: {row.wrong} wrong, such as {row.examples[0]}")
        code = target.stop() if target.alive else target.process.returncode
        outcome.facts["exit_code"] = code
        if code != 0:
            outcome.faults.append(f"the service ended with exit code {code}")
        log = target.log.read_text(errors="replace")
    outcome.facts["log_lines"] = len(log.splitlines())
    outcome.faults += [f"the log holds {word!r}" for word in _FORBIDDEN if word in log]
    return outcome


@dataclass
class _Campaign:
    """The phases, on a service that runs."""

    target: Target
    prober: Prober
    outcome: Outcome
    seed: int
    end: float

    async def run(self, requests: int, sockets: bool) -> None:
        """A fifth to warm up, the rest, a flood of connections; then what must hold."""
        target, prober, rng = self.target, self.prober, random.Random(self.seed)
        began = time.monotonic()
        face = await prober.settle(target, rng)
        lines, asked = await entries(target), prober.asked
        warm_up = max(1, round(requests * _WARM_UP))
        await self._phase(face, rng, warm_up, sockets)
        before = await _settled(target, None)
        await self._phase(face, rng, requests - warm_up, sockets)
        if sockets:
            with ExitStack() as stack:
                await asyncio.to_thread(flood, target, FILES + 100, stack, self.outcome.table)
                for _ in range(_PROBES_IN_FLOOD):
                    await prober.probe(rng)
        after = await _settled(target, before)
        await prober.probe(rng)
        added = await entries(target) - lines
        self.outcome.facts |= {
            "probes": prober.asked,
            "wall_seconds": round(time.monotonic() - began, 1),
            "service_processor_seconds": round(target.seconds(), 1),
            "after_warm_up": asdict(before),
            "at_the_end": asdict(after),
            "entries_added": added,
            "spent": await prober.spent(),
            "spent_by_the_hostile_client": await hostile_spent(target),
        }
        _judge(self.outcome, prober, before, after, added - (prober.asked - asked))

    async def _phase(self, face: Face, rng: random.Random, count: int, sockets: bool) -> None:
        """`count` hostile requests, and beside them connections in proportion."""
        target, table = self.target, self.outcome.table
        with ExitStack() as stack:
            work: list[Awaitable[None]] = [
                shoot(target, face, self.prober, rng, count, self.end, table)
            ]
            if sockets:
                held = max(1, count // _HELD_PER)
                await asyncio.to_thread(hold, target, face, held, stack, table)
                seed = rng.getrandbits(32)
                work.append(asyncio.to_thread(attack, target, face, seed, count, self.end, table))
            await asyncio.gather(*work)


def _plainly(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _plainly(error.exceptions[0])
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}, {error.details()}"
    return type(error).__name__


def _judge(outcome: Outcome, prober: Prober, before: Use, after: Use, entries_more: int) -> None:
    faults, facts = outcome.faults, outcome.facts
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
