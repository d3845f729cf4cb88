"""Our training step, taken apart: what `ktan.trainer` does for one student, a step at a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.data import Augment, Normalisation
from ktan.memory_format import channels_last
from ktan.methods import Binding
from ktan.methods.combination import parse_method
from ktan.networks import NetworkSpec, build, stages_of
from ktan.optimisers import make_optimiser
from ktan.pairing import pair_taps
from ktan.precision import Precision, autocast, resolve_precision
from ktan.pupil import Lesson, Pupil
from ktan.schedule import StagePlan
from ktan.teachers.live import LiveTeacher
from ktan.teachers.tsl_training import LayerRecipe
from ktan.trainer_options import TrainerOptions
from ktan.training_data import BatchStream, TrainingData

SHAPE = (3, 32, 32)
NORMALISE = Normalisation((129.3, 124.1, 112.4), (68.2, 65.4, 70.4))
_STEPS = 100_000
Answers = Literal["live", "cached"]


@dataclass(frozen=True)
class Setting:
    """What the contenders of one pair have in common."""

    teacher: str
    student: str
    classes: int
    images: Tensor
    """uint8 [n, 3, 32, 32]."""
    labels: Tensor
    batch: int
    device: torch.device

    def spec(self, name: str) -> NetworkSpec:
        return NetworkSpec(name, SHAPE, self.classes)


class BareStep:
    """Forward pass, cross-entropy, backward pass and optimiser of the student alone, on one batch
    that lies ready, in our precision and layout: what no loop can be faster than."""

    def __init__(self, setting: Setting, precision: Precision) -> None:
        device = setting.device
        network = _seeded(setting.spec(setting.student)).to(device)
        self.student = network.to(memory_format=torch.channels_last).train()
        self._optimiser = make_optimiser(self.student.parameters(), "sgd", 5e-4)
        self._precision = resolve_precision(device, precision)
        images = setting.images[: setting.batch].to(device)
        self._samples = channels_last(NORMALISE(images))
        self._labels = setting.labels[: setting.batch].to(device)
        self._device = device
        for group in self._optimiser.param_groups:
            group["lr"] = 0.01

    def step(self) -> None:
        with autocast(self._device, self._precision):
            logits = self.student(self._samples)
        loss = F.cross_entropy(logits.float(), self._labels)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()


class OurStep:
    """One student in training by a method of ours, beside ResNet of the teacher's depth.

    `answers`: `live` asks the teacher about every view, as a local one is; `cached` reads what a
    remote one said once of each sample, and shows the student augmented views of it.
    """

    def __init__(
        self,
        setting: Setting,
        method: str,
        precision: Precision,
        answers: Answers,
        *,
        compiled: bool = False,
    ) -> None:
        device = setting.device
        bound = parse_method(method, {})
        own, other = setting.spec(setting.student), setting.spec(setting.teacher)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            network = build(other)
        teacher = LiveTeacher([network], other, NORMALISE, (), device=device, precision=precision)
        teacher.read(bound.teacher_taps(teacher.stages), own)
        # How well a teacher-to-student layer is trained changes no step's time.
        few = setting.images[:256], setting.labels[:256]
        teacher.prepare(*few, LayerRecipe(steps=1, precision=precision))
        self.teacher = teacher
        at_hand = teacher.answer(few[0])
        self.student = _seeded(own)
        stages = stages_of(own)
        paths = pair_taps(teacher.taps, self.student, SHAPE, stages)
        objective = bound.build(
            Binding(
                self.student, SHAPE, setting.classes, teacher.taps, paths, at_hand, stages,
                teacher.stages,
            )
        )  # fmt: skip
        options = TrainerOptions(
            steps=_STEPS, answered_batch=setting.batch, optimiser="sgd", learning_rate=0.05,
            weight_decay=5e-4, augment="crop-flip", precision=precision, device=device.type,
            compile=compiled,
        )  # fmt: skip
        self._pupil = Pupil(
            Lesson(self.student, objective), options, device, resume=False, graphs=True
        )
        self._plan = StagePlan(objective.stages, _STEPS)
        nothing = setting.images[:0], setting.labels[:0]
        stored = _stored(teacher, setting.images) if answers == "cached" else {}
        data = TrainingData(
            *nothing, setting.images, answers=stored, answered_labels=setting.labels,
            teacher=teacher if answers == "live" else None,
        )  # fmt: skip
        self._stream = BatchStream(
            data, labelled_batch=1, answered_batch=setting.batch, seed=0, device=device,
            normalise=NORMALISE, augment=Augment(options.augment),
        )  # fmt: skip
        self._live = answers == "live"
        self._step = 0
        self._ready = self._stream.batch(0)
        self._views = setting.images[: setting.batch].to(device)

    def step(self) -> None:
        """On a batch that is there: the teacher, where one is asked, and the student's turn."""
        if self._live:
            self.teacher.answer_step(self._views, self._step)
        self._pupil.step(self._plan.at(self._step % _STEPS), self._ready)
        self._step += 1

    def step_with_data(self) -> None:
        """The same from drawing samples on: rows, augmentation, normalisation, answers."""
        batch = self._stream.batch(self._step)
        self._pupil.step(self._plan.at(self._step % _STEPS), batch)
        self._step += 1

    def check(self) -> None:
        """Raises UserError where the loss has become no number: its time would mean nothing."""
        self._pupil.row(self._step, self._ready)


def _seeded(spec: NetworkSpec) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(spec)


def _stored(teacher: LiveTeacher, images: Tensor) -> dict[str, Tensor]:
    parts = [teacher.answer(part) for part in torch.split(images, 256)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
