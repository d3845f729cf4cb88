"""The networks of a teacher's folder, as the service asks them: arrays in, arrays out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ktan.heap import keep_freed_memory
from ktan.memory_format import to_host
from ktan.precision import Precision
from ktan.teachers import TeacherModels


class TrainedTeacher:
    """The k networks of a teacher's folder, as the answerer asks them. Thread-safe.

    On a CPU fastest from as many threads as there are cores, each with one torch thread.
    """

    def __init__(self, models: TeacherModels):
        self._models = models

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        precision: Precision = "auto",
        *,
        compiled: bool = False,
    ) -> TrainedTeacher:
        """The teacher in `folder`, for a process that does little else than ask it.

        `precision`: of the forward pass, a public setting; see `answering_precision`;
        `compiled`: by torch.compile, minutes long, and for a single teacher only. Raises UserError
        when a file is missing, damaged, or of another network, or when nothing can be compiled.
        """
        if device.type == "cpu":
            keep_freed_memory()
        return cls(TeacherModels.load(folder, device, precision, compiled=compiled))

    @property
    def precision(self) -> Precision:
        """In which it answers: float32, bf16 or fp16."""
        return self._models.precision

    def answers(self, samples: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.float32]]:
        """`samples` uint8 or float32 [n, *input shape] → tap name → float32 [k, n, *shape]."""
        # Per thread: numbers too small to be normal take many times as long on some processors,
        # and how long a batch takes, which bounds what is admitted, must not tell of weights.
        torch.set_flush_denormal(True)
        outputs = to_host(self._models.answers(torch.from_numpy(samples)))
        return {name: values.numpy() for name, values in outputs.items()}
