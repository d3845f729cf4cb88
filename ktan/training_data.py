"""What a student trains on, and the batches that are drawn from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ktan.data import Augment, Normalisation
from ktan.data_parts import DataPlace, Part, Rows, fits, mix
from ktan.errors import UserError
from ktan.memory_format import channels_last
from ktan.methods.batch import Batch
from ktan.parallel import ONE, Group
from ktan.teachers.live import LiveTeacher

_STRONG = Augment("strong")
_SAMPLES, _LABELS, _ANSWER = "samples", "labels", "answer "


@dataclass(frozen=True)
class TrainingData:
    """Public samples, as uint8 (or float32, for tables); either part may be empty.

    Samples and answers may be anything that is read by positions: tensors, or memory maps.
    """

    labelled: Rows
    """[l, ...]."""
    labels: Tensor
    """int64 [l]."""
    answered: Rows | None = None
    """[a, ...]."""
    answers: Mapping[str, Rows] = field(default_factory=dict)
    """Tap name → float32 [a, ...]."""
    answered_labels: Tensor | None = None
    """int64 [a], -1 where there is none; None: none has a label."""
    teacher: LiveTeacher | None = None
    """Answers each view of the answered samples as it is drawn, instead of `answers`."""
    unlabelled: Rows | None = None
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

    That makes a resumed run exact, and two methods with one seed comparable sample by sample. Each
    part is walked through in an order that is drawn anew for each pass; a batch may span two
    passes, so that all batches are full. Nothing here waits for the device.
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
        data_on: DataPlace = "auto",
        group: Group = ONE,
    ) -> None:
        """`data_on`: where samples and answers lie, see `TrainerOptions.data_on`. `group`: the
        processes that share each step; the batches are those of all of them."""
        if min(labelled_batch, answered_batch, unlabelled_batch) < 1:
            raise UserError(
                "--labelled-batch, --answered-batch and --unlabelled-batch must be at least 1"
            )
        self._device = device
        self._seed = seed
        self._normalise = normalise
        self._augment = augment
        self._teacher = data.teacher
        # An empty part has the other one's shape, so that both can be concatenated.
        nothing = torch.empty(0, dtype=torch.int64)
        answered = data.labelled[nothing] if data.answered is None else data.answered
        labelled = data.labelled if len(data.labelled) else answered[nothing]
        labels = data.answered_labels
        unknown = torch.full((len(answered),), -1, dtype=torch.int64)
        columns: tuple[dict[str, Rows], dict[str, Rows]] = (
            {_SAMPLES: labelled, _LABELS: data.labels},
            {
                _SAMPLES: answered,
                _LABELS: unknown if labels is None else labels,
                **{_ANSWER + name: values for name, values in data.answers.items()},
            },
        )
        views: dict[str, Rows] = {} if data.unlabelled is None else {_SAMPLES: data.unlabelled}
        everything = [rows for part in (*columns, views) for rows in part.values()]
        on_device = fits(everything, device, data_on)
        self._labelled, self._answered = (
            Part(part, batch, (seed, number), device, on_device=on_device, group=group, what=what)
            for number, (part, batch, what) in enumerate(
                zip(
                    columns, (labelled_batch, answered_batch), ("labelled", "answered"), strict=True
                )
            )
        )
        self._unlabelled = None
        self._places = _places(self._labelled, self._answered, device=device)
        if views:
            self._unlabelled = Part(
                views, unlabelled_batch, (seed, 3), device, on_device=on_device, group=group,
                what="unlabelled",
            )  # fmt: skip
            self._unlabelled_places = _places(self._unlabelled, device=device)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the answered samples (the labelled ones where none is)."""
        return self._answered.steps_per_pass or self._labelled.steps_per_pass

    def batch(self, step: int) -> Batch:
        """Batch number `step`, from 0."""
        labelled, answered = self._labelled.at(step), self._answered.at(step)
        count = len(labelled[_LABELS])
        generator = torch.Generator(self._device).manual_seed(mix(self._seed, 2, step))
        views = self._augment(
            _joined(labelled[_SAMPLES], answered[_SAMPLES]), generator, *self._places
        )
        samples = self._ready(views)
        # Laid as the student's maps are: what is compared value by value is read in one order.
        answers = {
            name.removeprefix(_ANSWER): channels_last(values)
            for name, values in answered.items()
            if name.startswith(_ANSWER)
        }
        if self._teacher is not None:
            answers.update(self._teacher.answer_step(views[count:], step))
        weak = strong = None
        if self._unlabelled is not None:
            drawn = self._unlabelled.at(step)[_SAMPLES]
            places = self._unlabelled_places
            weak = self._ready(self._augment(drawn, generator, *places))
            strong = self._ready(_STRONG(drawn, generator, *places))
        return Batch(
            labelled=samples[:count],
            labels=labelled[_LABELS],
            answered=samples[count:],
            answers=answers,
            answered_labels=answered[_LABELS],
            weak=weak,
            strong=strong,
        )

    def _ready(self, samples: Tensor) -> Tensor:
        """Views as the student takes them."""
        return channels_last(self._normalise(samples))


def _places(*parts: Part, device: torch.device) -> tuple[int, Tensor | None]:
    """How many samples a step has in all processes, and where among them this one's stand; None
    where they are all."""
    batches = [part.batch for part in parts]
    starts = [sum(batches[:number]) for number in range(len(parts))]
    places = [
        torch.arange(part.batch)[part.share] + start
        for part, start in zip(parts, starts, strict=True)
    ]
    own = torch.cat(places)
    return sum(batches), None if len(own) == sum(batches) else own.to(device)


def _joined(one: Tensor, other: Tensor) -> Tensor:
    parts = [part for part in (one, other) if len(part)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
