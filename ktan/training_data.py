"""What a student trains on, and the batches that are drawn from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ktan.data import Augment, Normalisation
from ktan.errors import UserError
from ktan.memory_format import channels_last
from ktan.methods.batch import Batch
from ktan.teachers.live import LiveTeacher

_STRONG = Augment("strong")


@dataclass(frozen=True)
class TrainingData:
    """Public samples, as uint8 (or float32, for tables); either part may be empty."""

    labelled: Tensor
    """[l, ...]."""
    labels: Tensor
    """int64 [l]."""
    answered: Tensor | None = None
    """[a, ...]."""
    answers: Mapping[str, Tensor] = field(default_factory=dict)
    """Tap name → float32 [a, ...]."""
    answered_labels: Tensor | None = None
    """int64 [a], -1 where there is none; None: none has a label."""
    teacher: LiveTeacher | None = None
    """Answers each view of the answered samples as it is drawn, instead of `answers`."""
    unlabelled: Tensor | None = None
    """[u, ...]: samples for terms that look at views of unlabelled ones."""

    def __post_init__(self) -> None:
        count = 0 if self.answered is None else len(self.answered)
        if len(self.labelled) != len(self.labels):
            raise ValueError(f"{len(self.labelled)} samples, {len(self.labels)} labels")
        for name, values in self.answers.items():
            if len(values) != count:
                raise ValueError(f"{count} answered samples, {len(values)} answers of {name!r}")
        if self.answered_labels is not None and len(self.answered_labels) != count:
            raise ValueError(f"{count} answered samples, {len(self.answered_labels)} labels")
        if len(self.labelled) + count == 0:
            raise UserError("there is nothing to train on: no labelled and no answered samples")


class BatchStream:
    """Batches by step number: the same seed and step give the same batch, whatever came before.

    That makes a resumed run exact, and two methods with one seed comparable sample by sample. All
    data is kept on the device. Each part is walked through in an order that is drawn anew for
    each pass; a batch may span two passes, so that all batches are full.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        labelled_batch: int,
        answered_batch: int,
        unlabelled_batch: int = 1,
        seed: int,
        device: torch.device,
        normalise: Normalisation,
        augment: Augment,
    ) -> None:
        if min(labelled_batch, answered_batch, unlabelled_batch) < 1:
            raise UserError(
                "--labelled-batch, --answered-batch and --unlabelled-batch must be at least 1"
            )
        self._device = device
        self._seed = seed
        self._normalise = normalise
        self._augment = augment
        # An empty part has the other one's shape, so that both can be concatenated.
        answered = data.labelled[:0] if data.answered is None else data.answered
        labelled = data.labelled if len(data.labelled) else answered[:0]
        self._labelled = labelled.to(device)
        self._labels = data.labels.to(device)
        self._answered = answered.to(device)
        self._answers = {name: values.to(device) for name, values in data.answers.items()}
        labels = data.answered_labels
        unknown = torch.full((len(answered),), -1, dtype=torch.int64)
        self._answered_labels = (unknown if labels is None else labels).to(device)
        self._teacher = data.teacher
        self._orders = (
            _Order(len(labelled), labelled_batch, (seed, 0), device),
            _Order(len(answered), answered_batch, (seed, 1), device),
        )
        self._unlabelled = None if data.unlabelled is None else data.unlabelled.to(device)
        if self._unlabelled is not None:
            self._views = _Order(len(self._unlabelled), unlabelled_batch, (seed, 3), device)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the answered samples (the labelled ones where none is)."""
        labelled, answered = self._orders
        return answered.steps_per_pass or labelled.steps_per_pass

    def batch(self, step: int) -> Batch:
        """Batch number `step`, from 0."""
        labelled, answered = (order.indices(step) for order in self._orders)
        samples = torch.cat([self._labelled[labelled], self._answered[answered]])
        generator = torch.Generator(self._device).manual_seed(_mix(self._seed, 2, step))
        views = self._augment(samples, generator)
        samples = self._ready(views)
        answers = {name: values[answered] for name, values in self._answers.items()}
        if self._teacher is not None:
            answers.update(self._teacher.answer_step(views[len(labelled) :], step))
        weak = strong = None
        if self._unlabelled is not None:
            drawn = self._unlabelled[self._views.indices(step)]
            weak = self._ready(self._augment(drawn, generator))
            strong = self._ready(_STRONG(drawn, generator))
        return Batch(
            labelled=samples[: len(labelled)],
            labels=self._labels[labelled],
            answered=samples[len(labelled) :],
            answers=answers,
            answered_labels=self._answered_labels[answered],
            weak=weak,
            strong=strong,
        )

    def _ready(self, samples: Tensor) -> Tensor:
        """Views as the student takes them."""
        return channels_last(self._normalise(samples))


class _Order:
    """An endless walk over range(count) in batches; a new permutation each pass."""

    def __init__(self, count: int, batch: int, seed: tuple[int, int], device: torch.device) -> None:
        self._count = count
        self._batch = min(batch, count)
        self._seed = seed
        self._device = device
        self._passes: dict[int, Tensor] = {}

    @property
    def steps_per_pass(self) -> int:
        return -(-self._count // self._batch) if self._batch else 0

    def indices(self, step: int) -> Tensor:
        """int64 [batch] on the device."""
        if not self._batch:
            return torch.empty(0, dtype=torch.int64, device=self._device)
        start = step * self._batch
        first, offset = divmod(start, self._count)
        last = (start + self._batch - 1) // self._count
        walk = torch.cat([self._pass(number) for number in range(first, last + 1)])
        return walk[offset : offset + self._batch]

    def _pass(self, number: int) -> Tensor:
        if number not in self._passes:
            for old in [key for key in self._passes if key < number - 1]:
                del self._passes[old]
            generator = torch.Generator().manual_seed(_mix(*self._seed, number))
            self._passes[number] = torch.randperm(self._count, generator=generator).to(self._device)
        return self._passes[number]


def _mix(*numbers: int) -> int:
    """One well-mixed seed of several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
