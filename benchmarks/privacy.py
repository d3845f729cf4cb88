"""Every figure of the privacy core's speed, each beside its peer and its goal.

    make bench-privacy

Runs `benchmarks.noise`, `benchmarks.accounting` and `benchmarks.ledger` one after another, about
two minutes. Ratios are of one run on one machine; figures a second depend on the machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import accounting, ledger, noise

RESULT = Path(__file__).parent / "results" / "privacy.json"
COMMAND = "make bench-privacy"


def measure() -> dict[str, Any]:
    """The three results by name, with the date and the command."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": COMMAND,
        "noise": noise.measure(),
        "accounting": accounting.measure(),
        "ledger": ledger.measure(),
    }


def verdict(met: bool | None) -> str:
    """How a figure stands to its goal; None where there is no goal."""
    return {None: "", True: "met", False: "NOT MET"}[met]


def row(what: str, figure: str, peer: str, goal: str, met: bool | None) -> str:
    """One line of the table."""
    return f"{what:<42} {figure:>22} {peer:>32} {goal:>10} {verdict(met):>8}"


def noise_rows(result: dict[str, Any]) -> Iterator[str]:
    """Draws a second of both samplers."""
    peer, goal = result["draws_per_second"]["opendp-discrete-gaussian"], result["goal"]
    yield row(
        "rounded Gaussian, σ = 2^20, one core",
        f"{result['draws_per_second']['rounded-gaussian']:,.0f} draws/s",
        f"{result['ratio']:,.0f} × OpenDP's {peer:,.0f}",
        f"≥ {goal:.0f} ×",
        result["ratio"] >= goal,
    )


def accounting_rows(result: dict[str, Any]) -> Iterator[str]:
    """A charge and an ε beside PLD and PRV, and how far the ε differ."""
    ratio, difference = result["goals"]["ratio"], result["goals"]["difference"]
    for measured in result["rows"]:
        after = f"after {measured['answers']:,} answers"
        for what, name in (("charge", "charge"), ("epsilon", "ε query")):
            times = measured[f"{what}_ratio"]
            yield row(
                f"{name} {after}",
                f"{measured[f'{what}_us']:.2f} µs",
                f"{times:,.0f} × {measured['peer']}'s {measured[f'peer_{what}_us']:,.0f} µs",
                f"≥ {ratio:,} ×",
                times >= ratio,
            )
        yield row(
            f"ε {after}",
            f"|Δε| = {measured['difference']:.1e}",
            f"{measured['peer']}, grid {measured['peer_grid']:.0e}",
            f"≤ {difference:.0e}",
            measured["difference"] <= difference,
        )


def ledger_rows(result: dict[str, Any]) -> Iterator[str]:
    """Durable requests a second, with the stored answers."""
    for measured in result["rows"]:
        goal, rate = measured.get("goal"), measured["requests_per_second"]
        bare = measured.get("bare_sqlite_requests_per_second")
        where = measured.get("database", "SQLite, FULL")
        yield row(
            f"{where}: {measured['callers']} callers × {measured['samples_per_request']} samples",
            f"{rate:,} requests/s",
            "" if bare is None else f"{rate / bare:.2f} × bare sqlite3's {bare:,}",
            "" if goal is None else f"≥ {goal:,}",
            None if goal is None else rate >= goal,
        )


def table(result: dict[str, Any]) -> str:
    """What `make bench-privacy` prints."""
    heading = f"{'what':<42} {'measured':>22} {'beside':>32} {'goal':>10}"
    return "\n".join(
        [
            heading,
            *noise_rows(result["noise"]),
            *accounting_rows(result["accounting"]),
            *ledger_rows(result["ledger"]),
        ]
    )


def main() -> None:
    result = measure()
    print(table(result))
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
