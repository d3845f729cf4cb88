"""A service looked at from outside while it is overloaded, and what of its memory grew."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.faults.stream import secured
from benchmarks.fuzz.target import Target, Use
from benchmarks.soaking.figures import slope, slope_error
from benchmarks.soaking.heap import told
from protos import teacher_pb2, teacher_pb2_grpc

HEAP: Final = "heap"
"""The file beside the service's log in which it tells what is in use of its heap."""
MB: Final = 1e6
GROWTH: Final = 10.0
"""MB in ten minutes, in the second half, at most."""
JUDGED_MINUTES: Final = 10.0
"""Shorter soaks tell their growth, and are not judged by it: caches still fill."""
_WATCHER: Final = 63


@dataclass(frozen=True)
class Moment:
    """One look at the service. spent: units, of the ledger. seconds: of processor, used so far.
    heap: bytes that are in use of it. blocks: Python's."""

    time: float
    use: Use
    spent: int
    seconds: float
    heap: int
    blocks: int


class Watch:
    """Looks at the service from outside."""

    def __init__(self, target: Target) -> None:
        files = target.certificates / f"client-{_WATCHER}"
        channel = secured({file.name: file.read_bytes() for file in files.iterdir()})
        self._stub = teacher_pb2_grpc.TeacherServiceStub(channel(target.address))
        self._target = target
        self.moments: list[Moment] = []

    def describe(self) -> teacher_pb2.DescribeResponse:
        return self._stub.Describe(teacher_pb2.DescribeRequest(), timeout=60)

    def look(self) -> Moment:
        """Raises grpc.RpcError or OSError where nobody is there any more."""
        spent = self._stub.GetBudget(teacher_pb2.GetBudgetRequest(), timeout=60).budget.spent
        target = self._target
        heap = told(target.log.with_name(HEAP))
        moment = Moment(time.monotonic(), target.use(), spent, target.seconds(), *heap)
        self.moments.append(moment)
        return moment


def growth(moments: list[Moment], begin: float, end: float, violated: list[str]) -> dict[str, Any]:
    """Resident memory early, in the middle, at the end, and its slope over the second half; and
    that of what is in use of the heap, which the rest of resident memory was."""
    if not moments:
        return {}
    minutes = (end - begin) / 60
    middle = (begin + end) / 2

    def at(moment: float) -> float:
        nearest = min(moments, key=lambda known: abs(known.time - moment))
        return round(nearest.use.resident / MB, 1)

    half = [moment for moment in moments if middle <= moment.time <= end + 1]
    judged = minutes >= JUDGED_MINUTES
    slopes = {}
    for what, values in (
        ("memory", [moment.use.resident / MB for moment in half]),
        ("what is in use of the heap", [moment.heap / MB for moment in half]),
    ):
        times = [moment.time for moment in half]
        grown, error = (600 * of(times, values) for of in (slope, slope_error))
        slopes[what] = {"mb_per_10_minutes": round(grown, 2), "standard_error": round(error, 2)}
        if judged and grown > GROWTH:
            violated.append(
                f"{what} grew by {grown:.1f} ± {error:.1f} MB in 10 minutes; {GROWTH:g} are allowed"
            )
    return {
        "at_2_minutes_mb": at(begin + min(120.0, 30 * minutes)),
        "middle_mb": at(middle),
        "end_mb": at(end),
        "growth": slopes,
        "bound_mb_per_10_minutes": GROWTH,
        "judged": judged,
    }
