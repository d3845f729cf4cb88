"""The table as a picture: accuracy, and the paired difference to the student alone."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ktan.durable import write_durably
from student_client.comparison.outcomes import TeacherKind
from student_client.comparison.table import Facts, Row, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: Mapping[TeacherKind, str] = {
    "none": "#555555",
    "local": "#2a6f97",
    "remote": "#a63446",
}
_TEACHERS: Mapping[TeacherKind, str] = {
    "none": "no teacher",
    "local": "local teacher, unprotected",
    "remote": "remote private teacher",
}


def draw(rows: Sequence[Row], facts: Facts, path: Path) -> None:
    """Writes a PNG: a line for each row, the best on top; left its accuracy, right its paired
    difference to the student alone. Bars are ± a standard deviation, small dots single seeds.

    Raises OSError where it cannot be written.
    """
    buffer = io.BytesIO()
    draw_table(rows, facts).savefig(buffer, format="png", dpi=120)
    write_durably(path, buffer.getvalue())


def draw_table(rows: Sequence[Row], facts: Facts) -> Figure:
    """The figure that `draw` writes."""
    # Not pyplot: it would pick a window system and keep global state. Slow to import.
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    # A row without an accuracy has no place on the axis; the table says why.
    rows = [row for row in rows if row.accuracy is not None]
    names = [_name(row) for row in rows]
    width = 8.4 + 0.07 * max(map(len, names), default=0)
    figure = Figure(figsize=(width, 1.9 + 0.34 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        colour = _COLOURS[row.teacher]
        if row.accuracy is not None:
            _bar(left, place, row.accuracy, row.accuracies, colour)
        if row.difference is not None:
            _bar(right, place, row.difference, row.differences, colour)
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.4, -0.6)
    _lines(left, right, rows)
    left.set_xlabel("test accuracy after the last step, %")
    right.set_xlabel("difference to the student alone, same seed, points")
    for axes in (left, right):
        axes.grid(alpha=0.25, axis="x")
        axes.margins(x=0.08)
    kinds = [kind for kind in _TEACHERS if any(row.teacher == kind for row in rows)]
    handles = [
        Line2D([], [], color=_COLOURS[kind], marker="o", ms=6, lw=1.6, label=_TEACHERS[kind])
        for kind in kinds
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(kinds)), fontsize=8)
    figure.suptitle(
        textwrap.fill(_title(rows, facts), int(13 * width)), fontsize=9, x=0.01, ha="left"
    )
    return figure


def _bar(axes: Axes, place: int, spread: Spread, values: Mapping[int, float], colour: str) -> None:
    # Above the bar, which would hide them.
    axes.plot(
        [100 * value for value in values.values()], [place - 0.22] * len(values), "o", ms=3, mew=0,
        color=colour, alpha=0.45,
    )  # fmt: skip
    axes.errorbar(
        100 * spread.mean, place, xerr=None if spread.sd is None else 100 * spread.sd,
        fmt="o", ms=6, lw=1.6, capsize=3, color=colour, zorder=3,
    )  # fmt: skip


def _lines(left: Axes, right: Axes, rows: Sequence[Row]) -> None:
    """The student alone, with its own spread."""
    right.axvline(0, color=_COLOURS["none"], lw=1, ls="--")
    for row in rows:
        if row.is_baseline and row.accuracy is not None:
            mean, sd = row.accuracy.mean, row.accuracy.sd or 0.0
            left.axvline(100 * mean, color=_COLOURS["none"], lw=1, ls="--")
            left.axvspan(100 * (mean - sd), 100 * (mean + sd), color=_COLOURS["none"], alpha=0.1)


def _name(row: Row) -> str:
    if row.is_baseline:
        return "the student alone"
    return f"{row.method} ({row.teacher})" if row.teacher != "none" else row.method


def _title(rows: Sequence[Row], facts: Facts) -> str:
    seeds = max((len(row.accuracies) for row in rows), default=0)
    text = (
        f"{facts.dataset}, {facts.network}, {facts.test_samples:,} test samples, "
        f"{seeds} seed{'s' if seeds != 1 else ''}; ± a standard deviation, dots are seeds"
    )
    teacher = facts.teacher
    if teacher is not None:
        right = "" if teacher.accuracy is None else f", {100 * teacher.accuracy:.2f} %"
        text += f"; local teacher {teacher.name}{right}"
    private = [row.privacy for row in rows if row.privacy.promise is not None]
    if private:
        last = max(private, key=lambda origin: origin.epsilon_spent or 0.0)
        text += f"; remote teacher: {last.label}"
    return text
