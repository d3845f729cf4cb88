"""The table as text, for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from student_client.comparison.table import Facts, Row, Spread, TeacherFacts
from student_client.describe import WIDTH, table

TABLE_WIDTH: Final = 100
"""Columns of the table, at most: names of combinations are long. All else keeps to `WIDTH`."""
_LONGEST_METHOD: Final = 30
_DASH: Final = "–"


def screen_text(rows: Sequence[Row], facts: Facts) -> str:
    """The table, then what its words mean."""
    head = ("method", "teacher", "accuracy, %", "− alone, points", "seeds", "privacy")
    lines = [
        (
            _shortened(_named(row)),
            row.teacher,
            _percent(row.accuracy),
            _points(row.difference),
            _seeds(row, facts),
            _privacy_in_brief(row),
        )
        for row in rows
    ]
    notes = [
        textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for line in legend(rows, facts)
    ]
    return "\n".join([table([head, *lines], left=2), "", *notes])


def markdown_text(rows: Sequence[Row], facts: Facts) -> str:
    """A page: the table with every figure, then what its words mean."""
    head = (
        "method", "teacher", "accuracy, %", "− student alone, points", "seeds", "parameters",
        "multiply-adds", "compression", "speed-up", "privacy",
    )  # fmt: skip
    lines = [head, ("---", "---", *["---:"] * 7, "---")]
    for row in rows:
        teacher = facts.teacher if row.teacher == "local" else None
        speed = None if teacher is None else teacher.speed
        lines.append(
            (
                _named(row),
                row.teacher,
                _percent(row.accuracy),
                _points(row.difference),
                _seeds(row, facts),
                f"{row.parameters:,}",
                f"{facts.student.multiply_adds:,}",
                _DASH if teacher is None else f"{teacher.size.compression(facts.student):.3g} ×",
                _DASH if speed is None else f"{speed.ratio:.3g} ×",
                row.privacy.label,
            )
        )
    body = [f"| {' | '.join(line)} |" for line in lines]
    notes = [f"- {line}" for line in legend(rows, facts)]
    return "\n".join([f"# Methods compared on {facts.dataset}", "", *body, "", *notes]) + "\n"


def legend(rows: Sequence[Row], facts: Facts) -> list[str]:
    """What every row has in common, a sentence each."""
    student = facts.student
    steps = sorted({row.steps for row in rows})
    sentences = [
        f"Accuracy: after the last step, on {facts.test_samples:,} test samples of "
        f"{facts.dataset}, mean ± sample standard deviation over seeds.",
        "Difference: to the student alone with the same seed, first weights and batches; mean ± "
        "standard deviation of the pairs.",
        f"Student: {facts.network}, {student.parameters:,} parameters, "
        f"{_millions(student.multiply_adds)} multiply-adds, {_range(steps)} steps.",
    ]
    if facts.teacher is not None:
        sentences += [_teacher_text(facts.teacher, facts)]
    if any(row.privacy.kind == "unprotected" for row in rows):
        sentences += ["Unprotected: a local teacher answers without noise and under no promise."]
    private = [row.privacy for row in rows if row.privacy.promise is not None]
    if private:
        last = max(private, key=lambda origin: origin.epsilon_spent or 0.0)
        sentences += [f"Remote: {last.label}; for all rows together, which share their answers."]
    return sentences


def _teacher_text(teacher: TeacherFacts, facts: Facts) -> str:
    right = "" if teacher.accuracy is None else f", {100 * teacher.accuracy:.2f} % right"
    text = (
        f"Local teacher: {teacher.name}{right}, {teacher.size.parameters:,} parameters "
        f"({teacher.size.compression(facts.student):.3g} × the student's), "
        f"{teacher.size.saving(facts.student):.3g} × its multiply-adds"
    )
    speed = teacher.speed
    if speed is None:
        return f"{text}."
    return (
        f"{text}; the student is {speed.ratio:.3g} × as fast ({speed.teacher:,.0f} → "
        f"{speed.student:,.0f} samples/s, {speed.batch} at a time, {teacher.measured_on}, median "
        f"of {speed.turns} turns)."
    )


def _named(row: Row) -> str:
    return "the student alone" if row.is_baseline else row.method


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_METHOD else f"{text[: _LONGEST_METHOD - 1]}…"


def _seeds(row: Row, facts: Facts) -> str:
    text = f"{len(row.accuracies)} of {len(facts.seeds)}"
    return f"{text}, {len(row.diverged)} diverged" if row.diverged else text


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return _DASH
    return f"{100 * spread.mean:.2f}{_deviation(spread)}"


def _points(spread: Spread | None) -> str:
    return _DASH if spread is None else f"{100 * spread.mean:+.2f}{_deviation(spread)}"


def _deviation(spread: Spread) -> str:
    return "" if spread.sd is None else f" ± {100 * spread.sd:.2f}"


def _privacy_in_brief(row: Row) -> str:
    origin = row.privacy
    if origin.kind == "none":
        return "no teacher"
    if origin.promise is None:
        return "unprotected"
    return f"ε = {origin.epsilon_spent or 0:.3g} of {origin.promise.epsilon:g}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} million" if count >= 10**6 else f"{count:,}"


def _range(values: Sequence[int]) -> str:
    """Methods with stages of their own may take other numbers of steps."""
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"
