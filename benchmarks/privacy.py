"""Every figure of the privacy core's speed, each beside its peer and its goal.

    python -m benchmarks.privacy [--quick] [--out FOLDER]            (make bench-privacy)

Runs `benchmarks.noise`, `benchmarks.accounting` and `benchmarks.ledger` one after another, about
two minutes, and keeps what each measured where it would have kept it itself. Ratios are of one run
on one machine; figures a second depend on the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import accounting, ledger, noise

RESULTS = Path(__file__).parent / "results"
FILES = {"noise": noise.RESULT, "accounting": accounting.RESULT, "ledger": ledger.RESULT}


def measure(quick: bool = False) -> dict[str, dict[str, Any]]:
    """The three results by name. quick: too short to be believed, to see that all of it runs."""
    if quick:
        return {
            "noise": noise.measure(rounds=1),
            "accounting": accounting.measure(accounting.CASES[:1]),
            "ledger": ledger.measure(seconds=0.2),
        }
    return {
        "noise": noise.measure(),
        "accounting": accounting.measure(),
        "ledger": ledger.measure(),
    }


def verdict(met: bool | None) -> str:
    """How a figure stands to its goal; None where there is no goal."""
    return {None: "", True: "met", False: "NOT MET"}[met]


def row(what: str, figure: str, peer: str, goal: str, met: bool | None) -> str:
    """One line of the table."""
    return f"{what:<46} {figure:>22} {peer:>32} {goal:>10} {verdict(met):>8}"


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
    """Durable requests a second, each with its stored answers."""
    for measured in result["sqlite"]:
        goal, rate = measured["goal"], measured["requests_per_second"]
        yield row(
            f"SQLite, {measured['callers']} callers × {measured['samples_per_request']} samples",
            f"{rate:,} requests/s",
            f"{measured['ratio']:.2f} × sqlite3's {measured['bare_sqlite_requests_per_second']:,}",
            "" if goal is None else f"≥ {goal:,}",
            None if goal is None else rate >= goal,
        )
    if (measured := result["postgresql"]) is None:
        yield row("PostgreSQL", "no server", "KTAN_TEST_POSTGRESQL names one", "", None)
        return
    rate, goal = measured["two_replicas_requests_per_second"], measured["goal"]
    yield row(
        f"PostgreSQL, 2 replicas × {measured['callers_per_replica']} callers × 1 sample",
        f"{rate:,} requests/s",
        f"{measured['ratio_two_to_one']:.2f} × one replica's",
        f"≥ {goal:,}",
        rate >= goal,
    )


def table(result: dict[str, Any]) -> str:
    """What is printed: a line for each figure."""
    heading = f"{'what':<46} {'measured':>22} {'beside':>32} {'goal':>10}"
    return "\n".join(
        [
            heading,
            *noise_rows(result["noise"]),
            *accounting_rows(result["accounting"]),
            *ledger_rows(result["ledger"]),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="see that it runs; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    arguments = parser.parse_args()
    if arguments.quick and arguments.out.resolve() == RESULTS.resolve():
        parser.error("--quick measures nothing that is worth keeping: give --out FOLDER")
    arguments.out.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.quick)
    for name, file in FILES.items():
        path = arguments.out / file.name
        path.write_text(json.dumps(result[name], indent=2) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
