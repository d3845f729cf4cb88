"""Students of one seed: bound to what they are taught with, trained in lock-step, written down."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.methods import Binding, Method, Objective
from ktan.methods.needs import missing
from ktan.networks import NetworkSpec, NetworkStages, build
from ktan.pairing import pair_taps
from ktan.teacher import AnswerTap
from ktan.trainer import Lesson, TrainerOptions, train_together
from ktan.training_data import TrainingData
from student_client.comparison.outcomes import Cell, Outcome
from student_client.public_data import PublicData
from student_client.queries import Chosen
from student_client.results import Taught, write_results
from student_client.sources import Answers


@dataclass(frozen=True, eq=False)
class Material:
    """What all students of one kind of teacher learn from, batch by batch the same."""

    data: TrainingData
    taps: Mapping[str, AnswerTap] = field(default_factory=dict)
    """All that the teacher answers."""
    teacher_stages: NetworkStages | None = None
    """Of a local teacher, of which each method gets its own taps; a remote one answers what its
    custodian serves."""
    at_hand: Mapping[str, Tensor] = field(default_factory=dict)
    """Tap → answers to some or all samples, from which the scales of hints are measured."""
    answers: Answers | None = None
    """With their provenance."""
    chosen: Chosen | None = None

    def taps_of(self, method: Method) -> dict[str, AnswerTap]:
        """What a method gets to see."""
        if not method.needs:
            return {}
        if self.teacher_stages is None:
            return dict(self.taps)
        names = {tap.name for tap in method.teacher_taps(self.teacher_stages)}
        return {name: tap for name, tap in self.taps.items() if name in names}


@dataclass(frozen=True, eq=False)
class Classroom:
    """What every student of a comparison has in common."""

    public: PublicData
    spec: NetworkSpec
    stages: NetworkStages
    methods: Mapping[str, Method]
    given: Mapping[str, tuple[str, ...]]
    """Tap → the student's module paths that imitate it, as far as the user named them."""

    def bind(
        self, method: Method, material: Material, values: Mapping[str, Tensor], seed: int
    ) -> tuple[nn.Module, Objective]:
        """A new student and its method bound to it; both begin as the seed says.

        Raises UserError where the two do not fit.
        """
        taps = material.taps_of(method)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = build(self.spec)
        given = {name: paths for name, paths in self.given.items() if name in taps}
        shape = self.spec.input_shape
        binding = Binding(
            student=student,
            input_shape=shape,
            classes=self.spec.classes,
            taps=taps,
            paths=pair_taps(taps, student, shape, self.stages, given),
            answers={name: values[name] for name in taps},
            stages=self.stages,
            teacher_stages=material.teacher_stages,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                return student, method.build(binding)
            except ValueError as error:
                raise UserError(str(error)) from error

    def obstacle(self, method: Method, material: Material) -> str | None:
        """Why a method cannot be taught with this material, None where it can; spends nothing."""
        taps = material.taps_of(method)
        lacking = missing(method.needs, taps)
        if lacking:
            return f"it needs {' and '.join(lacking)}"
        try:
            self.bind(method, material, blank(taps), seed=0)
        except UserError as error:
            return str(error)
        return None

    def looks_at_unlabelled(self, method: Method, material: Material) -> bool:
        """Whether its students also see views of unlabelled samples in each step."""
        return self.bind(method, material, blank(material.taps_of(method)), seed=0)[1].unlabelled

    def train(
        self,
        cells: Sequence[Cell],
        material: Material,
        options: TrainerOptions,
        folders: Mapping[Cell, Path],
        *,
        progress: bool,
    ) -> list[Outcome]:
        """Trains students of one seed on the same batches, each from its checkpoint if it has one.

        Raises KeyboardInterrupt on ctrl-C, after all have written their checkpoints.
        """
        started = time.monotonic()
        methods = [self.methods[cell.method] for cell in cells]
        bound = [self.bind(m, material, material.at_hand, options.seed) for m in methods]
        lessons = [
            Lesson(student, objective, folders[cell])
            for cell, (student, objective) in zip(cells, bound, strict=True)
        ]
        histories = train_together(
            lessons, material.data, options, normalise=self.public.normalisation,
            resume=any(any(folders[cell].glob("*.safetensors")) for cell in cells),
            progress=progress,
        )  # fmt: skip
        seconds = time.monotonic() - started
        outcomes = []
        for cell, method, lesson, history in zip(cells, methods, lessons, histories, strict=True):
            taught = Taught(
                lesson.student, self.spec, method, history,
                material.chosen if method.needs else None,
                material.answers if method.needs else None,
            )  # fmt: skip
            result = write_results(folders[cell], self.public, taught, options, seconds)
            outcomes.append(Outcome.from_result(cell, result))
        return outcomes


def blank(taps: Mapping[str, AnswerTap]) -> dict[str, Tensor]:
    """Answers to two samples that say nothing, for a rehearsal."""
    return {name: torch.zeros(2, *tap.shape) for name, tap in taps.items()}
