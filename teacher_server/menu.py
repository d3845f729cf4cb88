"""The menu of taps: a release specification's three faces, joined.

Module paths and shapes come from the teacher's card (`ktan`), numbers from the ledger's budget
and the custodian's shares (`privacy`), messages from the wire (`protos`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ktan.errors import UserError
from privacy.calibration import radii
from privacy.release import TapRelease
from protos import teacher_pb2
from teacher_server.public_teacher import PublicTeacher

_KINDS = {
    "logits": teacher_pb2.TAP_KIND_LOGITS,
    "probabilities": teacher_pb2.TAP_KIND_PROBABILITIES,
    "hint": teacher_pb2.TAP_KIND_HINT,
    "tsl": teacher_pb2.TAP_KIND_TSL,
    "attention": teacher_pb2.TAP_KIND_ATTENTION,
    "signs": teacher_pb2.TAP_KIND_SIGNS,
    "products": teacher_pb2.TAP_KIND_PRODUCTS,
}


@dataclass(frozen=True)
class ServedTap:
    """One tap as it is served: its answer's shape, its release numbers, its temperature."""

    release: TapRelease
    shape: tuple[int, ...]
    temperature: float | None

    @property
    def name(self) -> str:
        return self.release.name

    def message(self) -> teacher_pb2.TapDescription:
        """The tap as `Describe` publishes it."""
        return teacher_pb2.TapDescription(
            name=self.name,
            kind=_KINDS[self.release.kind],
            shape=self.shape,
            bound=self.release.bound,
            noise_standard_deviation=self.release.noise_sd,
            charge=self.release.charge,
            temperature=self.temperature or 0.0,
        )


@dataclass(frozen=True)
class MethodOffer:
    """A distillation method that the menu can serve, as `Describe` publishes it.

    taps: names of those that it uses. charge: of one sample, for these taps alone.
    """

    name: str
    taps: tuple[str, ...]
    charge: int

    def message(self) -> teacher_pb2.MethodOffer:
        """The offer as `Describe` publishes it."""
        return teacher_pb2.MethodOffer(name=self.name, taps=self.taps, charge=self.charge)


def parse_shares(texts: Sequence[str]) -> dict[str, float]:
    """`["probabilities=0.9", "hint=0.1"]` as weights by tap. Raises UserError."""
    shares: dict[str, float] = {}
    for text in texts:
        name, separator, weight = text.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not separator or not name or not (0 < value < math.inf):
            raise UserError(f"--share wants TAP=WEIGHT with a positive weight, got '{text}'")
        shares[name] = value
    return shares


def build_menu(
    teacher: PublicTeacher, answer_units: int, answers: int, shares: Mapping[str, float]
) -> tuple[ServedTap, ...]:
    """What is served: the teacher's taps that have a share of the budget (all, when none is named).

    `answer_units`: the ledger's whole answering budget; `answers`: how many samples it should
    last for. A `dp-sgd` teacher's answers are post-processing: no noise, no charge, no shares.
    Raises UserError for a share of an unknown tap, or where a tap's share is too small for a grid.
    """
    taps = {tap.name: tap for tap in teacher.taps}
    unknown = sorted(set(shares) - set(taps))
    if unknown:
        raise UserError(f"no tap '{unknown[0]}' in this teacher; it offers {', '.join(taps)}")
    names = [name for name in taps if not shares or name in shares]
    if teacher.mode == "dp-sgd":
        releases = [
            TapRelease.free(name, taps[name].kind, math.prod(taps[name].shape)) for name in names
        ]
    else:
        weights = {name: shares.get(name, 1.0) for name in names}
        kinds = {name: taps[name].kind for name in names}
        grid = radii(answer_units, answers, weights, kinds)
        releases = [
            TapRelease(
                name=name,
                kind=taps[name].kind,
                dimension=math.prod(taps[name].shape),
                bound=taps[name].bound,
                radius=grid[name],
                teachers=teacher.teachers,
            )
            for name in names
        ]
    return tuple(
        ServedTap(release, taps[release.name].shape, taps[release.name].temperature)
        for release in releases
    )
