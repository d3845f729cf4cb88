"""Seconds of each selection, and k-centre beside one pass over all samples a centre.

    python -m benchmarks.selection [--threads N]                    (make bench-selection)

50,000 samples of 128 features, 5,000 chosen. The plain loop is the textbook's: for each centre one
float32 matrix-vector product over all samples. Both by the clock, in one run on the same features;
the processor's time stands beside it, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ktan.selection import Selection, k_centre, select

RESULT = Path(__file__).parent / "results" / "selection.json"
COMMAND = "python -m benchmarks.selection"
SAMPLES, FEATURES, CLASSES, COUNT = 50_000, 128, 10, 5_000
ROUNDS = 5
GOAL = 10.0
"""Seconds, on two cores."""
RUNS = 3

Taken = dict[str, float]


def _drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes_and_noise() -> tuple[Tensor, Tensor]:
    """Features as a network has them: rectified, about one centre a class; and logits of them."""
    centres = _drawn(CLASSES, FEATURES, seed=0).relu()
    labels = torch.arange(SAMPLES) % CLASSES
    features = (centres[labels] + _drawn(SAMPLES, FEATURES, seed=1) * 0.5).relu()
    return features, features @ (centres - centres.mean(dim=0)).T


def other_features() -> dict[str, Tensor]:
    """Kinds of features that ask different things of a pool of the farthest samples."""
    few = torch.randint(6_000, (SAMPLES,), generator=torch.Generator().manual_seed(3))
    return {
        "normal": _drawn(SAMPLES, FEATURES, seed=1),
        "a curved plane": (_drawn(SAMPLES, 2, seed=1) @ _drawn(2, FEATURES, seed=2)).tanh(),
        "6,000 different ones": _drawn(6_000, FEATURES, seed=1)[few],
        "heavy tails": _drawn(SAMPLES, FEATURES, seed=1) * (2 * _drawn(SAMPLES, 1, seed=2)).exp(),
    }


def plain_loop(features: Tensor, first: int) -> Tensor:
    """Farthest-first traversal with one matrix-vector product over all samples a centre."""
    squared = features.square().sum(dim=1)
    nearest = torch.full_like(squared, float("inf"))
    chosen, centre = [], first
    for _ in range(COUNT):
        chosen.append(centre)
        distance = squared + squared[centre] - 2 * (features @ features[centre])
        nearest = torch.minimum(nearest, distance.clamp_(min=0))
        nearest[centre] = -1
        centre = int(nearest.argmax())
    return torch.tensor(chosen)


def radius(features: Tensor, centres: Tensor) -> float:
    """How far the worst sample is from its nearest centre, in float64."""
    points, places = features.double(), features[centres].double()
    return max(
        float(torch.cdist(part, places).amin(dim=1).max()) for part in torch.split(points, 2_000)
    )


def taken(work: Callable[[], Tensor], runs: int) -> tuple[Taken, Tensor]:
    """The fastest of `runs`, by the clock and on the processors together, and what was chosen."""
    times = []
    for _ in range(runs):
        clock, processors = time.perf_counter(), time.process_time()
        chosen = work()
        times.append((time.perf_counter() - clock, time.process_time() - processors))
    seconds, processor_seconds = min(times)
    return {"seconds": seconds, "processor_seconds": processor_seconds}, chosen


def measure(runs: int = RUNS) -> dict[str, Any]:
    """Every selection, k-centre in rounds and on other features, and the plain loop."""
    before = os.getloadavg()[0]
    features, logits = classes_and_noise()

    def chosen(name: Selection, count: int = COUNT, already: Tensor | None = None) -> Tensor:
        return select(
            name,
            count,
            SAMPLES,
            features=lambda: features,
            logits=lambda: logits,
            already=already,
            generator=torch.Generator().manual_seed(0),
        )

    def in_rounds() -> Tensor:
        asked = torch.empty(0, dtype=torch.int64)
        for _ in range(ROUNDS):
            asked = torch.cat([asked, chosen("kcentre", COUNT // ROUNDS, asked)])
        return asked

    selections: dict[str, Taken] = {}
    picks: dict[str, Tensor] = {}
    names: tuple[Selection, ...] = get_args(Selection)
    for name in names:
        selections[name], picks[name] = taken(lambda name=name: chosen(name), runs)  # type: ignore[misc]
    selections[f"kcentre, {ROUNDS} rounds"], _ = taken(in_rounds, runs)
    plain, textbook = taken(lambda: plain_loop(features, int(picks["kcentre"][0])), 1)
    others = {
        kind: taken(lambda points=points: k_centre(points, COUNT), 1)[0]  # type: ignore[misc]
        for kind, points in other_features().items()
    }
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"{COMMAND} --threads {torch.get_num_threads()}",
        "samples": SAMPLES,
        "features": FEATURES,
        "chosen": COUNT,
        "selections": selections,
        "kcentre on other features": others,
        "plain float32 loop": plain,
        "ratio": {clock: plain[clock] / selections["kcentre"][clock] for clock in plain},
        "covering radius": {
            "kcentre": radius(features, picks["kcentre"]),
            "plain float32 loop": radius(features, textbook),
            "random": radius(features, picks["random"]),
        },
        "goal_seconds": GOAL,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}; "
        f"{torch.get_num_threads()} threads; load {before:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after",
    }


def main() -> None:
    """Prints what was measured and keeps it."""
    parser = argparse.ArgumentParser(description="Seconds of each selection.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure()
    print(f"{COUNT:,} of {SAMPLES:,} samples, {FEATURES} features; {result['machine']}")
    rows = dict(result["selections"])
    rows |= {f"kcentre, {kind}": row for kind, row in result["kcentre on other features"].items()}
    rows["plain float32 loop"] = result["plain float32 loop"]
    for name, row in rows.items():
        print(f"{name:<32}{row['seconds']:>8.2f} s  ({row['processor_seconds']:.2f} s processor)")
    radii = ", ".join(f"{name} {value:.4f}" for name, value in result["covering radius"].items())
    print(f"covering radius: {radii}")
    ratio = result["ratio"]
    print(
        f"k-centre takes 1/{ratio['seconds']:.1f} of the plain loop's time "
        f"(1/{ratio['processor_seconds']:.1f} of its processor time); goal {GOAL:.0f} s"
    )
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
