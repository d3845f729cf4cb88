"""Noise draws a second of both samplers, side by side on one core.

    python -m benchmarks.noise

Both give integers of σ = 2²⁰ from a cryptographic source. The processor's time is counted, not the
clock's, in turns, so that other work on the machine favours neither. Small requests are measured as
the service makes them: from the reservoir that a background thread fills.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from privacy.noise import DiscreteGaussian, NoiseSource, RoundedGaussian
from privacy.noise_reservoir import NoiseReservoir

RESULT = Path(__file__).parent / "results" / "noise.json"
ROUNDS = 5
COMMAND = "python -m benchmarks.noise"
DRAWS = {"rounded-gaussian": 5_000_000, "opendp-discrete-gaussian": 40_000}
GOAL = 50.0
"""Times OpenDP's draws a second."""
REQUEST = 640
"""Draws of one request: 64 samples with probabilities of ten classes."""


def rate(source: NoiseSource, count: int) -> float:
    """Draws per second of processor time of this thread."""
    before = time.thread_time()
    source.sample(count)
    return count / (time.thread_time() - before)


def microseconds(work: Callable[[], object], calls: int = 200) -> float:
    """Median time of a call by the clock, with pauses in which a background thread may work."""
    times = []
    for _ in range(calls):
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
        time.sleep(0.0005)
    return statistics.median(times) * 1e6


def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    """Draws a second of both samplers, their ratio, and the time of one small request."""
    started = time.perf_counter()
    rounded = RoundedGaussian()
    first_use = time.perf_counter() - started
    sources: list[NoiseSource] = [rounded, DiscreteGaussian()]
    for source in sources:
        source.sample(1000)
    rates: dict[str, list[float]] = {source.name: [] for source in sources}
    for _ in range(rounds):
        for source in sources:
            rates[source.name].append(rate(source, DRAWS[source.name]))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    reservoir = NoiseReservoir(rounded)
    reservoir.sample(1)
    time.sleep(0.2)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": COMMAND,
        "draws_per_second": medians,
        "ratio": medians["rounded-gaussian"] / medians["opendp-discrete-gaussian"],
        "goal": GOAL,
        "tables_seconds": first_use,
        "request_draws": REQUEST,
        "request_microseconds": {
            "drawn ahead": microseconds(lambda: reservoir.sample(REQUEST)),
            "rounded-gaussian": microseconds(lambda: rounded.sample(REQUEST)),
            "opendp-discrete-gaussian": microseconds(lambda: sources[1].sample(REQUEST), 20),
        },
        "machine": f"{os.cpu_count()} cores, {platform.machine()}; one thread",
    }


def main() -> None:
    """Prints what was measured and keeps it."""
    result = measure()
    rates, waits = result["draws_per_second"], result["request_microseconds"]
    for name, value in rates.items():
        print(f"{name:<26}{value:>14,.0f} draws/s  {waits[name]:>9,.1f} µs for {REQUEST}")
    print(f"{'drawn ahead':<26}{'':>23}  {waits['drawn ahead']:>9,.1f} µs for {REQUEST}")
    print(
        f"ratio {result['ratio']:,.0f} (goal {GOAL:.0f}) on one core; "
        f"tables made once, in {result['tables_seconds'] * 1e3:.0f} ms"
    )
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
