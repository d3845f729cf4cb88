"""A benchmark as text for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from typing import Final

from ktan.networks.measure import Timing
from student_client.benchmark import Result, Speed
from student_client.benchmark_networks import Measured
from student_client.describe import WIDTH, table

_DASH: Final = "–"


def benchmark_text(result: Result) -> str:
    """Sizes, speeds, and how they were measured."""
    student, teacher = result.student, result.teacher
    sizes: list[tuple[str, ...]] = [
        ("", "network", "parameters", "multiply-adds", "on disk", "accuracy")
    ]
    if teacher is not None:
        sizes.append(("teacher", *_sizes(teacher)))
    sizes.append(("student", *_sizes(student)))
    if teacher is not None:
        sizes.append(
            (
                "ratio",
                "",
                _times(teacher.size.compression(student.size)),
                _times(teacher.size.saving(student.size)),
                _times(teacher.bytes / student.bytes),
                "",
            )
        )
    speeds: list[tuple[str, ...]] = [
        ("runtime", "batch", "", "median", "p95", "samples/s", "faster", "on disk")
    ]
    for speed in result.speeds:
        speeds += _speed(speed)
    return "\n".join(
        [table(sizes, left=2), "", table(speeds, left=1), "", *map(_folded, _notes(result))]
    )


def _sizes(measured: Measured) -> tuple[str, ...]:
    return (
        measured.name,
        f"{measured.size.parameters:,}",
        f"{measured.size.multiply_adds / 1e6:,.1f} M",
        bytes_text(measured.bytes),
        _DASH if measured.accuracy is None else f"{100 * measured.accuracy:.2f} %",
    )


def _speed(speed: Speed) -> list[tuple[str, ...]]:
    head = (speed.runtime, f"{speed.batch:,}")
    if speed.teacher is None or speed.teacher_bytes is None:
        return [(*head, "student", *_timing(speed.student), "", bytes_text(speed.student_bytes))]
    return [
        (*head, "teacher", *_timing(speed.teacher), "", bytes_text(speed.teacher_bytes)),
        (
            "", "", "student", *_timing(speed.student), _times(speed.student.ratio),
            bytes_text(speed.student_bytes),
        ),
    ]  # fmt: skip


def _timing(timing: Timing) -> tuple[str, ...]:
    return (_milliseconds(timing.median), _milliseconds(timing.p95), f"{timing.throughput:,.0f}")


def _notes(result: Result) -> list[str]:
    plural = "" if result.threads == 1 else "s"
    notes = [
        f"From raw samples to logits, on {result.device}, {result.threads} thread{plural}, "
        f"{result.precision}"
        + (" (int8: its own)" if any(one.runtime == "int8" for one in result.speeds) else "")
        + ". median, p95: of passes that nothing follows until they are done; samples/s: of "
        "passes one behind the other."
    ]
    if result.teacher is not None:
        notes.append(
            f"faster: samples/s of the student over the teacher's, the median of {result.turns} "
            "turns in which both were measured; a busy machine slows both."
        )
    return notes


def bytes_text(count: int) -> str:
    """312 kB, 6.83 MB."""
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:,.2f} MB"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.3g} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _times(ratio: float) -> str:
    return f"{ratio:.3g} ×"


def _folded(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
