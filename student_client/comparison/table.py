"""The ablation table: a row for each method and teacher, over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ktan.networks.measure import Size, SpeedUp
from student_client.comparison.outcomes import Outcome, TeacherKind
from student_client.options import LOCAL
from student_client.provenance import Provenance


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds."""

    mean: float
    sd: float | None
    """With n - 1; None of one seed."""
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of no value."""
        if not values:
            return None
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, len(values))


@dataclass(frozen=True)
class TeacherFacts:
    """The teacher on this machine, beside its students."""

    name: str
    """Its network, and how many of them answer together."""
    size: Size
    accuracy: float | None
    """On test samples, as its own card says; None where it does not."""
    speed: SpeedUp | None
    """Of the student against it; None where it was not measured."""
    measured_on: str
    """Device and precision of that."""


@dataclass(frozen=True)
class Facts:
    """What all rows have in common."""

    dataset: str
    test_samples: int
    network: str
    """The student's."""
    student: Size
    seeds: tuple[int, ...]
    """All that were asked for."""
    teacher: TeacherFacts | None
    """None without a teacher on this machine."""


@dataclass(frozen=True)
class Row:
    """One method under one teacher."""

    method: str
    teacher: TeacherKind
    accuracies: Mapping[int, float]
    """Seed → accuracy after the last step, in [0, 1]; without the students that diverged."""
    diverged: tuple[int, ...]
    """Seeds whose student has no accuracy, because its loss was no longer finite."""
    differences: Mapping[int, float]
    """Seed → accuracy minus that of the student alone with the same seed: the same first weights
    and the same batches. Empty for the student alone itself."""
    parameters: int
    steps: int
    privacy: Provenance
    """Of all its students together: the largest ε spent."""

    @property
    def accuracy(self) -> Spread | None:
        """Over all its seeds; None where every student diverged."""
        return Spread.of(list(self.accuracies.values()))

    @property
    def difference(self) -> Spread | None:
        """Over the seeds of which the student alone is finished, too."""
        return Spread.of(list(self.differences.values()))

    @property
    def is_baseline(self) -> bool:
        """Whether this is the student alone."""
        return self.method == LOCAL


def table_of(outcomes: Iterable[Outcome]) -> list[Row]:
    """Rows of all that is finished, the highest mean accuracy first."""
    found: dict[tuple[str, TeacherKind], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.cell.method, outcome.cell.teacher), []).append(outcome)
    alone = _accuracies(found.get((LOCAL, "none"), []))
    rows = [_row(method, teacher, group, alone) for (method, teacher), group in found.items()]
    return sorted(rows, key=lambda row: (-_mean(row), row.method, row.teacher))


def _accuracies(group: Sequence[Outcome]) -> dict[int, float]:
    return {
        one.cell.seed: one.accuracy
        for one in sorted(group, key=lambda one: one.cell)
        if one.accuracy is not None
    }


def _mean(row: Row) -> float:
    """Below everything where there is none."""
    return -1.0 if row.accuracy is None else row.accuracy.mean


def _row(
    method: str, teacher: TeacherKind, group: Sequence[Outcome], alone: Mapping[int, float]
) -> Row:
    accuracies = _accuracies(group)
    baseline = method == LOCAL
    return Row(
        method=method,
        teacher=teacher,
        accuracies=accuracies,
        diverged=tuple(sorted(one.cell.seed for one in group if one.accuracy is None)),
        differences={
            seed: value - alone[seed]
            for seed, value in accuracies.items()
            if seed in alone and not baseline
        },
        parameters=group[0].parameters,
        steps=max(one.steps for one in group),
        # ε only grows, and is of all rows together: the last receipt says most.
        privacy=max((one.privacy for one in group), key=lambda origin: origin.epsilon_spent or 0.0),
    )


def row_json(row: Row, facts: Facts) -> dict[str, Any]:
    """A row as plain values; accuracies and differences in [0, 1]."""
    accuracy, difference, teacher = row.accuracy, row.difference, _teacher_of(row, facts)
    promise = row.privacy.promise
    return {
        "method": row.method,
        "teacher": row.teacher,
        "seeds": len(row.accuracies),
        "diverged": len(row.diverged),
        "accuracy_mean": None if accuracy is None else accuracy.mean,
        "accuracy_sd": None if accuracy is None else accuracy.sd,
        "difference_mean": None if difference is None else difference.mean,
        "difference_sd": None if difference is None else difference.sd,
        "difference_seeds": 0 if difference is None else difference.count,
        "parameters": row.parameters,
        "multiply_adds": facts.student.multiply_adds,
        "compression": None if teacher is None else teacher.size.compression(facts.student),
        "multiply_adds_saving": None if teacher is None else teacher.size.saving(facts.student),
        "speed_up": None if teacher is None or teacher.speed is None else teacher.speed.ratio,
        "steps": row.steps,
        "privacy": row.privacy.label,
        "epsilon_spent": row.privacy.epsilon_spent,
        "epsilon": None if promise is None else promise.epsilon,
        "delta": None if promise is None else promise.delta,
    }


def _teacher_of(row: Row, facts: Facts) -> TeacherFacts | None:
    """The teacher that a row's student is smaller than, where one can look at it."""
    return facts.teacher if row.teacher == "local" else None
