"""What the turns come to: ratios of neighbours in time, their medians, and the table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

GOALS: Mapping[str, float] = {"bulk": 0.95, "single": 0.45, "added_ms": 5.0}
LOADS: Mapping[str, tuple[int, int]] = {"bulk": (8, 64), "single": (64, 1)}
"""Clients, and images in each of their requests."""

Found = dict[str, Any]
"""What a process said of one turn."""


def beside(load: Found, before: Found, after: Found) -> float:
    """Images/s of `load` over the mean of what was measured right before and right after it."""
    return float(load["images_per_second"] / _speed(before, after))


def added_ms(idle: Found, before: Found, after: Found) -> float:
    """Milliseconds of `idle`'s median latency beyond a forward pass of one image."""
    return float(idle["p50_ms"] - 1e3 / _speed(before, after))


def summary(turns: Sequence[Found], rounds: Sequence[Found] = ()) -> Found:
    """Medians over the `turns` of the service and the `rounds` beside LitServe, and all of each."""
    every: dict[str, list[float]] = {
        load: [turn["ratios"][load] for turn in turns] for load in LOADS
    }
    every["added_ms"] = [turn["added_ms"] for turn in turns]
    for load in LOADS if rounds else ():
        every[f"litserve_{load}"] = [one[load]["litserve_of_bare"] for one in rounds]
        every[f"{load}_of_litserve"] = [one[load]["ours_of_litserve"] for one in rounds]
    return {
        "medians": {name: statistics.median(values) for name, values in every.items()},
        "each": every,
    }


def table(model: str, precision: str, found: Found) -> str:
    """The figures of one model in one precision beside their goals."""
    bare, setting = found["bare_best"]["images_per_second"], found["bare_best"]["setting"]
    layout = "last" if setting["channels_last"] else "first"
    lines = [
        f"{model} in {precision}: bare {bare:,.0f} images/s ({setting['callers']} batches of "
        f"{setting['batch']} at once, {setting['torch_threads']} threads each, channels {layout})"
    ]
    for load in LOADS:
        latency = "/".join(
            f"{statistics.median(turn[load][f'p{q}_ms'] for turn in found['turns']):.0f}"
            for q in (50, 95, 99)
        )
        speed = statistics.median(turn[load]["images_per_second"] for turn in found["turns"])
        lines.append(
            f"{_line(load, found)} of bare; {speed:,.0f} images/s, {latency} ms (p50/p95/p99)"
        )
    lines.append(f"{_line('added_ms', found)} ms beyond a bare pass of one image")
    for name in found["medians"]:
        if "litserve" in name:
            other = "LitServe" if name.endswith("_of_litserve") else "bare"
            lines.append(f"{_line(name, found)} of {other}")
    return "\n".join(lines)


def _line(name: str, found: Found) -> str:
    median, each = found["medians"][name], found["each"][name]
    line = f"  {name:18} {median:5.2f}"
    if goal := GOALS.get(name):
        reached = median <= goal if name == "added_ms" else median >= goal
        line += f" (goal {goal:g}: {'reached' if reached else 'missed'})"
    return f"{line} [{' '.join(f'{value:.2f}' for value in each)}]"


def _speed(before: Found, after: Found) -> float:
    return float(statistics.mean(one["images_per_second"] for one in (before, after)))
