"""Students of one seed: bound to what they are taught with, trained in lock-step, written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ktan.data_parts import Rows
from ktan.errors import UserError
from ktan.evaluation import accuracy
from ktan.methods import Binding, Method, Objective
from ktan.methods.needs import missing, serving
from ktan.networks import NetworkSpec, NetworkStages, count_parameters
from ktan.networks.exits import exit_heads
from ktan.pairing import pair_taps
from ktan.pupil import Diverged
from ktan.teacher import AnswerTap
from ktan.trainer import Lesson, TrainerOptions, train_together
from ktan.training_data import TrainingData
from student_client.binding import blank, new_student
from student_client.comparison.outcomes import Cell, Outcome, write_diverged
from student_client.provenance import alone
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
    at_hand: Mapping[str, Rows] = field(default_factory=dict)
    """Tap → answers to some or all samples, from which the scales of hints are measured."""
    answers: Answers | None = None
    """With their provenance."""
    chosen: Chosen | None = None

    def taps_of(self, method: Method) -> dict[str, AnswerTap]:
        """What a method gets to see."""
        if not method.needs:
            return {}
        if self.teacher_stages is None:
            return serving(method.needs, self.taps)
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
        self, method: Method, material: Material, values: Mapping[str, Rows], seed: int
    ) -> tuple[nn.Module, Objective]:
        """A new student and its method bound to it; both begin as the seed says.

        Raises UserError where the two do not fit.
        """
        taps = material.taps_of(method)
        student = new_student(self.spec, seed)
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

        A student whose loss is no longer finite is set aside, and the others go on from their last
        checkpoints. Raises KeyboardInterrupt on ctrl-C, after all have written theirs.
        """
        started = time.monotonic()
        outcomes: list[Outcome] = []
        left = list(cells)
        while left:
            lessons = [self._lesson(cell, material, options, folders[cell]) for cell in left]
            try:
                histories = train_together(
                    lessons, material.data, options, normalise=self.public.normalisation,
                    resume=any(any(folders[cell].glob("*.safetensors")) for cell in left),
                    progress=progress,
                )  # fmt: skip
            except Diverged as broken:
                lost = left.pop(lessons.index(broken.lesson))
                outcome = self._outcome_of(lost, material, broken)
                write_diverged(folders[lost], outcome, str(broken))
                outcomes.append(outcome)
                continue
            seconds = time.monotonic() - started
            for cell, lesson, history in zip(left, lessons, histories, strict=True):
                method = self.methods[cell.method]
                taught = Taught(
                    lesson.student, self.spec, method, history,
                    material.chosen if method.needs else None,
                    material.answers if method.needs else None,
                    exit_heads(lesson.objective),
                )  # fmt: skip
                result = write_results(folders[cell], self.public, taught, options, seconds)
                outcomes.append(Outcome.from_result(cell, result))
            break
        return outcomes

    def _lesson(
        self, cell: Cell, material: Material, options: TrainerOptions, folder: Path
    ) -> Lesson:
        method = self.methods[cell.method]
        student, objective = self.bind(method, material, material.at_hand, options.seed)
        return Lesson(student, objective, folder, self._validate(options))

    def _validate(self, options: TrainerOptions) -> Callable[[nn.Module], float] | None:
        """Accuracy on what was held out of training, where something was."""
        public = self.public
        if not len(public.validation):
            return None
        return lambda student: accuracy(
            student, public.validation, public.validation_labels,
            normalise=public.normalisation, precision=options.precision,
        )  # fmt: skip

    def _outcome_of(self, cell: Cell, material: Material, broken: Diverged) -> Outcome:
        answers = material.answers if self.methods[cell.method].needs else None
        return Outcome(
            cell=cell,
            accuracy=None,
            parameters=count_parameters(broken.lesson.student),
            steps=broken.step,
            privacy=alone() if answers is None else answers.provenance,
        )
