"""Runs a teacher folder: what each of the k teachers says of public samples."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.networks import build
from ktan.precision import Precision, autocast, resolve_device
from ktan.tap_reader import TapReader, read_taps
from ktan.teachers.alignment import Alignment
from ktan.teachers.card import CardTap, TeacherCard
from ktan.teachers.folder import read_alignments, read_weights
from ktan.teachers.stack import Stack, state_slice
from ktan.teachers.tsl import layer_in, without_layers


class TeacherModels:
    """k teachers on one device. Thread-safe: a server's executor threads may share it."""

    def __init__(
        self,
        card: TeacherCard,
        weights: Mapping[str, Tensor],
        alignments: Mapping[str, Alignment],
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        """`weights`: name → [k, ...], with the layers of TSL taps (`ktan.teachers.tsl`);
        `alignments`: tap name → alignment, where a hint has one."""
        self.card = card
        self.device = torch.device(device)
        self.precision = precision
        self._taps = tuple(entry.tap for entry in card.taps)
        self._alignments = {n: a.to(self.device) for n, a in alignments.items()}
        self._stack = Stack(card.network, self._taps, self.device)
        self._weights = {name: value.to(self.device) for name, value in weights.items()}
        counts = {len(value) for value in self._weights.values()}
        if counts != {card.teachers}:
            raise UserError(f"the card speaks of {card.teachers} teachers, the weights of {counts}")
        self._single: TapReader | None = None
        if card.teachers == 1:
            own = {name: value[0] for name, value in self._weights.items()}
            network = _loaded(card, without_layers(own))
            self._layers = {tap.name: layer_in(own, tap) for tap in self._taps}
            paths = [path for tap in self._taps for path in tap.paths]
            self._single = read_taps(network.to(self.device), paths)

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device | str = "auto",
        precision: Precision = "float32",
    ) -> "TeacherModels":
        """The teachers in `folder`; `device` is auto, cpu or cuda.

        Raises UserError when a file is missing, damaged, or of another network.
        """
        card = TeacherCard.read(folder)
        where = resolve_device(device) if isinstance(device, str) else device
        return cls(card, read_weights(folder), read_alignments(folder), where, precision)

    @torch.no_grad()
    def answers(self, samples: Tensor) -> dict[str, Tensor]:
        """What each teacher says: tap name → float32 [k, n, *tap.shape], not bounded.

        `samples`: uint8 or float32 [n, *input_shape] as they come over the wire. A teacher's row
        that is not finite is a row of zeros, silently: k never changes, and nobody learns why.
        """
        self._require_fitting(samples)
        k, count = self.card.teachers, len(samples)
        answers = {
            tap.name: torch.zeros(k, count, *tap.shape, device=self.device) for tap in self._taps
        }
        normalised = self.card.normalisation(samples.to(self.device))
        for teachers, part in self._stack.chunks(k, count):
            for name, values in self._read(teachers, normalised[part]).items():
                if name in self._alignments:
                    values = self._alignments[name](values, teachers)
                answers[name][teachers, part] = finite_rows(values)
        return answers

    def mean_answers(self, samples: Tensor) -> dict[str, Tensor]:
        """What an unprotected teacher says: the mean of the k answers, *without noise*.

        Tap name → float32 [n, *tap.shape]. Logits are centred and every vector is clipped to its
        tap's bound, as in a release, so that a comparison differs in the noise alone; the raw taps
        of a `dp-sgd` teacher are its answers as they are.
        """
        answers = self.answers(samples)
        return {
            entry.tap.name: _bounded(answers[entry.tap.name], entry).mean(dim=0)
            for entry in self.card.taps
        }

    def _read(self, teachers: slice, normalised: Tensor) -> dict[str, Tensor]:
        with autocast(self.device, self.precision):
            if self._single is None:
                return self._stack.read(state_slice(self._weights, teachers), normalised)
            logits, features = self._single(normalised)
        # Squares and products of features are made in float32.
        exact = {path: feature.float() for path, feature in features.items()}
        return {
            tap.name: tap.read(logits.float(), exact, self._layers[tap.name]).float()[None]
            for tap in self._taps
        }

    def _require_fitting(self, samples: Tensor) -> None:
        expected = (self.card.torch_dtype, tuple(self.card.input_shape))
        if (samples.dtype, tuple(samples.shape[1:])) != expected:
            raise UserError(
                f"samples are {samples.dtype} {list(samples.shape)}, but this teacher takes "
                f"{expected[0]} [n, {', '.join(map(str, expected[1]))}]"
            )


def finite_rows(values: Tensor) -> Tensor:
    """[k, n, ...] with a vector that has any entry not finite replaced by zeros."""
    finite = values.flatten(2).isfinite().all(dim=2)
    return torch.where(finite.reshape(*finite.shape, *[1] * (values.ndim - 2)), values, 0.0)


def _bounded(values: Tensor, entry: CardTap) -> Tensor:
    if entry.bound == 0:
        return values
    if entry.tap.kind == "logits":
        values = values - values.mean(dim=-1, keepdim=True)
    norms = values.flatten(2).norm(dim=2)
    scale = (entry.bound / norms.clamp_min(1e-30)).clamp_max(1.0)
    clipped: Tensor = values * scale.reshape(*scale.shape, *[1] * (values.ndim - 2))
    return clipped


def _loaded(card: TeacherCard, state: Mapping[str, Tensor]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        network = build(card.network)
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise UserError(f"the weights are of another network: {error}") from error
    return network.eval().requires_grad_(False)
