"""A teacher in this process: answers without noise and without a ledger, for comparison only."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ktan.teacher import AnswerTap
from ktan.teachers.models import TeacherModels


class LocalTeacher:
    """A teacher folder as a `Teacher`. What it teaches is *unprotected*, unless it is `dp-sgd`."""

    def __init__(self, models: TeacherModels) -> None:
        self.models = models
        self._taps = {
            entry.tap.name: AnswerTap(
                name=entry.tap.name,
                kind=entry.tap.kind,
                shape=entry.tap.shape,
                noise_sd=0.0,
                temperature=entry.tap.temperature or 1.0,
            )
            for entry in models.card.taps
        }

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "auto") -> "LocalTeacher":
        """The teacher in `folder`. Raises UserError when there is none."""
        return cls(TeacherModels.load(folder, device))

    @property
    def version(self) -> str:
        """The teacher's random id."""
        return self.models.card.version

    @property
    def taps(self) -> Mapping[str, AnswerTap]:
        """Tap name → what one answer of it is; no noise."""
        return self._taps

    def answer(self, samples: Tensor) -> dict[str, Tensor]:
        """Mean answers of the k teachers: tap name → float32 [n, *shape], on the CPU."""
        return {name: value.cpu() for name, value in self.models.mean_answers(samples).items()}
