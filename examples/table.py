"""What the demo shows: one table on the terminal, one picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Result = dict[str, Any]

_TERMS = {
    "local": "local (cross-entropy on public labels)",
    "kd": "distillation",
    "hint": "hint",
    "adversarial": "adversarial",
}


def rows(results: Sequence[Result]) -> list[tuple[str, Callable[[Result], float], str]]:
    """(name, accuracy of one run, what it cost) of each line of the table."""
    first = results[0]
    private = first["students"]["private"]
    promise = private["promise"]
    teachers = first["teacher"]["teachers"]
    protection = (
        f"ε = {private['epsilon_spent']:.2f} of {promise['epsilon']:g} "
        f"at δ = {promise['delta']:g}, {promise['adjacency']}"
    )
    charged = f"{private['answers']['charged']} charged answers"
    bare = "student, teacher without noise", "unprotected, for comparison"
    if first["mode"] == "ensemble":
        name, cost = f"{teachers} private teachers together", "unprotected, on the secure host"
    else:
        name, cost = "DP-SGD teacher", "protected by its training"
        charged = f"{private['answers']['samples']} answers, charge 0"
        bare = "student, the same teacher's folder", "no wire; answers of dp-sgd carry no noise"

    def of(student: str) -> Callable[[Result], float]:
        return lambda result: float(result["students"][student]["accuracy"])

    table = [
        (name, lambda result: float(result["teacher"]["accuracy"]), cost),
        ("student, local loss only", of("local"), "no teacher"),
        ("student, private teacher", of("private"), f"{protection}; {charged}"),
        *(
            (f"student, private teacher, {also}", of(also), "the same answers")
            for also in first["students"]
            if also not in ("local", "private", "unprotected")
        ),
        (bare[0], of("unprotected"), bare[1]),
    ]
    return [row for row in table if "local" in first["students"] or row[2] != "no teacher"]


def tabulate(results: Sequence[Result]) -> str:
    """The table as text; accuracies in per cent on the public test part."""
    lines = [f"{'accuracy on public test samples':<36}{'%':>8}  {'spread':>6}  privacy"]
    for name, of, cost in rows(results):
        values = [100 * of(result) for result in results]
        spread = f"±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"{name:<36}{statistics.mean(values):>8.2f}  {spread:>6}  {cost}")
    seeds = ", ".join(str(result["seed"]) for result in results)
    lost = [100 * (_of(r, "unprotected") - _of(r, "private")) for r in results]
    lines.append(f"privacy costs {statistics.mean(lost):.2f} points (seeds {seeds})")
    if "local" in results[0]["students"]:
        gained = [100 * (_of(r, "private") - _of(r, "local")) for r in results]
        lines.append(f"the private teacher gives {statistics.mean(gained):+.2f} points")
    return "\n".join(lines)


def draw(results: Sequence[Result], folder: Path) -> Path:
    """Accuracies as bars, and the four losses of the privately taught student; PNG."""
    history = results[0]["students"]["private"]["history"]
    figure, axes = plt.subplot_mosaic(
        [["bars", *list(_TERMS)[:2]], ["bars", *list(_TERMS)[2:]]],
        figsize=(12, 5.5),
        layout="constrained",
    )
    bars, table = axes["bars"], rows(results)[::-1]
    names = [name.replace(", ", ",\n") for name, _, _ in table]
    values = [[100 * of(result) for result in results] for _, of, _ in table]
    means = [statistics.mean(v) for v in values]
    bars.barh(names, means, color=["#a63446", "#2a6f97", "#c9a227", "#888888"][: len(table)])
    for place, (mean, single) in enumerate(zip(means, values, strict=True)):
        bars.text(mean - 1.5, place, f"{mean:.1f}", va="center", ha="right", color="white")
        if len(single) > 1:
            bars.scatter(single, [place] * len(single), color="black", s=9, zorder=3)
    bars.set_xlim(0, 100)
    bars.set_xlabel("accuracy on public test samples, %")
    bars.tick_params(axis="y", labelsize=8)
    promise = results[0]["students"]["private"]["promise"]
    bars.set_title(
        f"ε ≤ {promise['epsilon']:g}, δ = {promise['delta']:g}, {promise['adjacency']}", fontsize=10
    )
    for term, title in _TERMS.items():
        curve = history.get(term, [])
        axes[term].plot([step for step, _ in curve], [value for _, value in curve], lw=1)
        axes[term].set_title(f"{title} loss", fontsize=9)
        axes[term].set_xlabel("step", fontsize=8)
    path = folder / "demo.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _of(result: Result, student: str) -> float:
    return float(result["students"][student]["accuracy"])
