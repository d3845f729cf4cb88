"""Runs a teacher folder: what each of the k teachers says of public samples."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ktan.errors import UserError
from ktan.memory_format import to_device
from ktan.networks import NetworkSpec, multiply_adds
from ktan.precision import Precision, autocast, has_bf16, resolve_device
from ktan.teachers.alignment import Alignment
from ktan.teachers.card import CardTap, TeacherCard
from ktan.teachers.folder import read_alignments, read_weights
from ktan.teachers.one_by_one import OneByOne
from ktan.teachers.stack import Stack, state_slice

_WORTH_BF16 = 1e6
"""Multiply-adds of one sample, below which converting takes what bf16 gains (docs/teachers.md)."""


class TeacherModels:
    """k teachers on one device. Thread-safe: a server's executor threads may share it."""

    def __init__(
        self,
        card: TeacherCard,
        weights: Mapping[str, Tensor],
        alignments: Mapping[str, Alignment],
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        *,
        compiled: bool = False,
    ) -> None:
        """`weights`: name → [k, ...], with the layers of TSL taps (`ktan.teachers.tsl`);
        `alignments`: tap name → alignment, where a hint has one; `precision`: of the networks'
        passes (`answering_precision`); `compiled`: by torch.compile, a single teacher only, which
        takes minutes (`OneByOne`)."""
        self.card = card
        self.device = torch.device(device)
        self.precision = answering_precision(card.network, self.device, precision)
        self._taps = tuple(entry.tap for entry in card.taps)
        self._alignments = {n: a.to(self.device) for n, a in alignments.items()}
        self._stack = Stack(card.network, self._taps, self.device)
        counts = {len(value) for value in weights.values()}
        if counts != {card.teachers}:
            raise UserError(f"the card speaks of {card.teachers} teachers, the weights of {counts}")
        if compiled and card.teachers > 1:
            raise UserError(
                f"{card.teachers} teachers would be compiled one after another, minutes each; only "
                "a single one can be: leave --compile out"
            )
        # A CPU may need both: few samples are read stacked, many one network after another.
        self._networks: OneByOne | None = None
        self._weights: dict[str, Tensor] | None = None
        if card.teachers > 1 and self._stack.reads_stacked(1):
            self._weights = {name: value.to(self.device) for name, value in weights.items()}
        if self._weights is None or self.device.type == "cpu":
            self._networks = OneByOne(
                card.network, self._taps, weights, self.device, self.precision, compiled=compiled
            )

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device | str = "auto",
        precision: Precision = "float32",
        *,
        compiled: bool = False,
    ) -> "TeacherModels":
        """The teachers in `folder`; `device` is auto, cpu or cuda.

        Raises UserError when a file is missing, damaged, or of another network.
        """
        card = TeacherCard.read(folder)
        where = resolve_device(device) if isinstance(device, str) else device
        weights, alignments = read_weights(folder), read_alignments(folder)
        return cls(card, weights, alignments, where, precision, compiled=compiled)

    def answers(self, samples: Tensor) -> dict[str, Tensor]:
        """What each teacher says: tap name → float32 [k, n, *tap.shape], not bounded.

        `samples`: uint8 or float32 [n, *input_shape] as they come over the wire. A teacher's row
        that is not finite is a row of zeros, silently: k never changes, and nobody learns why.
        """
        self._require_fitting(samples)
        k, count = self.card.teachers, len(samples)
        # Made outside inference mode: callers may go on with them as with any tensor.
        answers = {
            tap.name: torch.empty(k, count, *tap.shape, device=self.device) for tap in self._taps
        }
        with torch.inference_mode():
            there = to_device(samples, self.device)
            for teachers, part in self._stack.chunks(k, count):
                normalised = self.card.normalisation(there[part])
                self._read(
                    teachers,
                    normalised,
                    {name: values[teachers, part] for name, values in answers.items()},
                )
            for values in answers.values():
                zero_broken_rows(values)
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

    def _read(self, teachers: slice, normalised: Tensor, into: dict[str, Tensor]) -> None:
        """Writes what these teachers say, aligned, into [k', n, ...] of each tap."""
        k = len(next(iter(into.values())))
        raw = dict(into)
        for name, alignment in self._alignments.items():
            raw[name] = into[name].new_empty(k, len(normalised), alignment.centre.shape[1])
        if self._weights is not None and (
            self._networks is None or self._stack.reads_stacked(len(normalised))
        ):
            with autocast(self.device, self.precision):
                own = state_slice(self._weights, teachers)
                found = self._stack.read(own, normalised, stacked=True)
            for name, values in found.items():
                raw[name].copy_(values)
        elif self._networks is not None:
            self._networks.read(normalised, raw)
        for name, alignment in self._alignments.items():
            into[name].copy_(alignment(raw[name], teachers))

    def _require_fitting(self, samples: Tensor) -> None:
        expected = (self.card.torch_dtype, tuple(self.card.input_shape))
        if (samples.dtype, tuple(samples.shape[1:])) != expected:
            raise UserError(
                f"samples are {samples.dtype} {list(samples.shape)}, but this teacher takes "
                f"{expected[0]} [n, {', '.join(map(str, expected[1]))}]"
            )


def answering_precision(
    network: NetworkSpec, device: torch.device, precision: Precision
) -> Precision:
    """`auto` is bf16 where the hardware has it and the network is large enough, else float32.

    Never fp16, in which a large value becomes infinite, and its answer zeros. Decided by public
    settings, so that a teacher answers alike on machines of one kind.
    """
    if precision != "auto":
        return precision
    if has_bf16(device) and multiply_adds(network) >= _WORTH_BF16:
        return "bf16"
    return "float32"


def zero_broken_rows(values: Tensor) -> None:
    """float32 [k, n, ...]: a vector that has any entry not finite becomes zeros, in place."""
    rows = values.flatten(2)
    # Zero times what is finite is zero, and times all else not a number.
    broken = (rows * 0).sum(dim=2, keepdim=True).isnan()
    rows.masked_fill_(broken, 0.0)


def _bounded(values: Tensor, entry: CardTap) -> Tensor:
    if entry.bound == 0:
        return values
    if entry.tap.kind == "logits":
        values = values - values.mean(dim=-1, keepdim=True)
    norms = values.flatten(2).norm(dim=2)
    scale = (entry.bound / norms.clamp_min(1e-30)).clamp_max(1.0)
    clipped: Tensor = values * scale.reshape(*scale.shape, *[1] * (values.ndim - 2))
    return clipped
