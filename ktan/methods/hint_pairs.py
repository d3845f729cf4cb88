"""A student's connected features beside the hints they imitate, on one scale."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ktan.connectors import Connector
from ktan.hints import HintScale
from ktan.methods.method import Batch, View, hint_taps
from ktan.taps import tap_shapes
from ktan.teacher import AnswerTap


class HintPair(NamedTuple):
    """One hint of one batch."""

    key: str
    """The hint's name as a module's name."""
    student: Tensor
    """r(F_s): float32 [a, ...]."""
    teacher: Tensor
    """F_t, standardised, with its noise: float32 [a, ...]."""
    noise_sd: float
    """Of a coordinate of `teacher`."""


class HintPairs:
    """All hints that the teacher answers and the student imitates, with their connectors.

    Arguments as of `Method.build`; raises UserError when there is no such hint.
    """

    def __init__(
        self,
        student: nn.Module,
        input_shape: tuple[int, ...],
        taps: Mapping[str, AnswerTap],
        paths: Mapping[str, str],
        answers: Mapping[str, Tensor],
    ) -> None:
        hints = hint_taps(taps, paths)
        shapes = tap_shapes(student, input_shape, [paths[tap.name] for tap in hints])
        # A module's name may hold no dot, a tap's may.
        self._taps = {tap.name.replace(".", "_"): tap for tap in hints}
        self._scales = {
            key: HintScale.of(tap, answers[tap.name]) for key, tap in self._taps.items()
        }
        self._path_of = {key: paths[tap.name] for key, tap in self._taps.items()}
        self.connectors = {
            key: Connector(shapes[self._path_of[key]], tap.shape) for key, tap in self._taps.items()
        }

    @property
    def paths(self) -> tuple[str, ...]:
        """The student's taps that are imitating."""
        return tuple(self._path_of.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key → shape of one hint."""
        return {key: tap.shape for key, tap in self._taps.items()}

    def __call__(self, view: View, batch: Batch) -> list[HintPair]:
        return [
            HintPair(
                key,
                self.connectors[key](view.answered_features(self._path_of[key])),
                self._scales[key].standardise(batch.answers[tap.name]),
                self._scales[key].noise_sd,
            )
            for key, tap in self._taps.items()
        ]
