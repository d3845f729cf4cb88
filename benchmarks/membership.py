"""Membership inference against the service, a student, and a DP-SGD teacher, beside the caps.

    python -m benchmarks.membership [--data glyphs|mnist] [--data-root data] [--worlds 160]

Benchmark on public data only: everything here trains, without noise too, on digits that anybody
has. Attackers: an *outsider* knows the population and trains shadow ensembles; a *poisoner* also
wrote every other record of the target's shard; *knows all but one* also knows every other record,
which is the attacker of the promise. Queries: the target itself, or the whole budget on the
near-duplicates of it that it moves most.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.membership_attacks import DELTA, Group, play
from benchmarks.membership_canaries import canary_audit
from benchmarks.membership_worlds import Setting, halved
from ktan.data import DataSource
from privacy import noise
from privacy.audit.membership.verdict import Row, judge, rows_text

RESULT = Path(__file__).parent / "results" / "membership.json"
LABEL = "benchmark on public data only"


def draw(groups: list[Group], path: Path) -> None:
    """ROC curves on logarithmic axes, a panel an ε, with the caps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rates = np.geomspace(2e-4, 1.0, 200)
    protected = [group for group in groups if group[0].startswith("service, ")]
    bare = dict(next(attacks for name, _, attacks in groups if name.startswith("one teacher")))
    figure, axes = plt.subplots(1, len(protected), figsize=(14, 5), sharey=True)
    for panel, (title, claim, attacks) in zip(axes, protected, strict=True):
        for number, (name, (members, others)) in enumerate(attacks.items()):
            curve = _curve(members, others, rates)
            panel.plot(rates, curve, color=f"C{number}", label=name, linewidth=1.2)
        members, others = bare["outsider, mislabelled target, asks the target itself"]
        panel.plot(rates, _curve(members, others, rates), "r:", label="one teacher WITHOUT noise")
        panel.plot(rates, claim.cap(rates), "k-", linewidth=2.0, label="cap of the claim")
        panel.plot(rates, rates, color="0.7", linestyle="--", label="guessing")
        panel.set(xscale="log", yscale="log", xlim=(5e-4, 1), ylim=(5e-4, 1.1), title=title)
        panel.set_xlabel("false-positive rate")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("true-positive rate")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.suptitle(f"Membership inference beside what the claimed ε allows ({LABEL})")
    figure.legend(handles, labels, loc="lower center", ncol=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(path, dpi=110)


def _curve(members: np.ndarray, others: np.ndarray, rates: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)[::-1]
    places = np.minimum((rates * len(others)).astype(int), len(others) - 1)
    curve = np.array([(members > ordered[place]).mean() for place in places])
    # Below one false positive there is nothing to see.
    return np.where(rates * len(others) >= 1.0, curve, np.nan)


def table_of(groups: list[Group]) -> dict[str, list[Row]]:
    """Rows by group; all of them are judged together."""
    comparisons = sum(len(attacks) for _, _, attacks in groups)
    return {
        title: [
            row
            for name, (members, others) in attacks.items()
            for row in judge(name, members, others, claim, comparisons=comparisons)
        ]
        for title, claim, attacks in groups
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("glyphs", "mnist"), default="glyphs")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--shadows", type=int, default=40)
    parser.add_argument("--worlds", type=int, default=160)
    parser.add_argument("--students", type=int, default=80)
    parser.add_argument("--canaries", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    root = options.data_root.expanduser()
    dataset = DataSource(options.data, root, size=options.records).load()
    dataset = halved(dataset)
    setting = Setting()
    groups, facts = play(dataset, setting, options.shadows, options.worlds, options.students, say)
    content: dict[str, Any] = {
        "note": LABEL,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python -m benchmarks.membership", *sys.argv[1:]]),
        "options": {
            key: value for key, value in vars(options).items() if key not in ("data_root", "out")
        },
        "setting": asdict(setting),
        "noise": noise.DEFAULT_NOISE,
        "delta": DELTA,
        "teachers": facts,
        "attacks": {},
    }
    print(f"Membership inference: {LABEL}\n")
    for title, rows in table_of(groups).items():
        print(title, *rows_text(rows), "", sep="\n")
        content["attacks"][title] = [row.to_json() for row in rows]
    canaries = canary_audit(dataset, options.canaries, say)
    content["canaries"] = [result.to_json() for result in canaries]
    print("DP-SGD, one run with canaries", *(result.line() for result in canaries), sep="\n")
    content["seconds"] = round(time.perf_counter() - started)
    draw(groups, options.out.with_suffix(".png"))
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\nfigures: {options.out}\npicture: {options.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
