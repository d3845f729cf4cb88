"""A student's connected features beside the hints they imitate, on one scale, and their term."""

from typing import NamedTuple

import torch
from torch import Tensor

from ktan.connectors import connector
from ktan.hints import HintScale
from ktan.losses import hint_loss
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding, module_key
from ktan.methods.needs import Need
from ktan.methods.objective import STUDENT, Term
from ktan.methods.once import OncePerTurn

HINT = Need("hint")


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
    """All hints that the teacher answers and the student imitates, with their connectors."""

    def __init__(self, binding: Binding) -> None:
        hints = binding.taps_for(HINT)
        self._taps = {module_key(tap.name): tap for tap in hints}
        self._path_of = {key: binding.paths[tap.name][0] for key, tap in self._taps.items()}
        shapes = binding.shapes(self._path_of.values())
        self._scales = {
            key: HintScale.of(tap, binding.answers[tap.name]) for key, tap in self._taps.items()
        }
        self.connectors = {
            key: connector(tap.kind, shapes[self._path_of[key]], tap.shape)
            for key, tap in self._taps.items()
        }
        self._once = OncePerTurn(self._pairs)

    @property
    def paths(self) -> tuple[str, ...]:
        """The student's taps that are imitating."""
        return tuple(self._path_of.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key → shape of one hint."""
        return {key: tap.shape for key, tap in self._taps.items()}

    def __call__(self, view: View, batch: Batch) -> list[HintPair]:
        """Of the answered samples; made once a turn, however many terms look."""
        return self._once(view, batch)

    def _pairs(self, view: View, batch: Batch) -> list[HintPair]:
        return [
            HintPair(
                key,
                self._connected(key, view),
                self._scales[key].standardise(batch.answers[tap.name]),
                self._scales[key].noise_sd,
            )
            for key, tap in self._taps.items()
        ]

    def _connected(self, key: str, view: View) -> Tensor:
        connect, path = self.connectors[key], self._path_of[key]
        if len(self._taps[key].shape) == 1:
            vector: Tensor = connect(view.answered_features(path))
            return vector
        with view.in_its_precision():
            connected: Tensor = connect(view.answered_output(path))
        return connected.float()


def hint_term(weight: float, pairs: HintPairs, name: str = "hint") -> Term:
    """The mean squared error of all hints, each through its connector."""

    def hint(view: View, batch: Batch) -> Tensor:
        return torch.stack(
            [hint_loss(pair.student, pair.teacher) for pair in pairs(view, batch)]
        ).mean()

    return Term(name, STUDENT, weight, hint)
