"""A teacher on this machine: an exported student or several, a finished run, a teacher's folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ktan.errors import UserError
from ktan.networks.measure import Size, size_of
from ktan.precision import Precision
from ktan.teachers import FILES, TeacherCard
from ktan.teachers.live import Draw, LiveTeacher
from student_client.provenance import Provenance, unprotected
from student_client.public_data import PublicData, check_suits
from student_client.student_card import StudentCard, read_student, student_folder


@dataclass(frozen=True, eq=False)
class ComparedTeacher:
    """A live teacher beside the students of a comparison, and what the table says of it."""

    live: LiveTeacher
    name: str
    """Its network, and how many of them answer together."""
    accuracy: float | None
    """On test samples, as its card says; None where it says nothing."""
    origin: str
    """file:FOLDER."""
    version: str
    mode: str

    @property
    def size(self) -> Size:
        """Of all its networks."""
        return size_of(self.live.spec).times(len(self.live.networks))

    def provenance(self, samples: int) -> Provenance:
        """What it taught is unprotected."""
        return unprotected(self.origin, self.version, self.mode, samples)


def load_local(
    folder: Path,
    public: PublicData,
    device: torch.device,
    precision: Precision,
    draw: Draw = "mean",
) -> ComparedTeacher:
    """The teacher in `folder`; or the students in several folders, with commas between, as several
    teachers of one kind.

    `draw`: what several answer, see `LiveTeacher`. Raises UserError when there is none or it does
    not suit the data.
    """
    whose = f"the teacher in {folder}"
    options: dict[str, Any] = {"device": device, "precision": precision, "draw": draw}
    if all((folder / name).exists() for name in FILES):
        card = TeacherCard.read(folder)
        check_suits(public, card.input_dtype, card.input_shape, card.classes, whose)
        return ComparedTeacher(
            live=LiveTeacher.load(folder, **options),
            name=_name(card.network.name, card.teachers),
            accuracy=None,
            origin=f"file:{folder}",
            version=card.version,
            mode=card.mode,
        )
    homes = _homes(folder)
    networks, cards = zip(*(read_student(home) for home in homes), strict=True)
    own: StudentCard = cards[0]
    check_suits(public, own.input_dtype, own.network.input_shape, own.classes, whose)
    for home, card in zip(homes, cards, strict=True):
        if (card.network, card.normalisation) != (own.network, own.normalisation):
            raise UserError(
                f"the students in {homes[0]} and {home} differ in network or normalisation; "
                "several teachers must be of one kind"
            )
    if len(cards) == 1:
        origin, version = homes[0], own.weights_sha256
    else:
        digests = "".join(card.weights_sha256 for card in cards)
        origin, version = folder, hashlib.sha256(digests.encode()).hexdigest()
    return ComparedTeacher(
        live=LiveTeacher(networks, own.network, own.normalisation, (), **options),
        name=_name(own.network.name, len(networks)),
        accuracy=own.test_accuracy if len(cards) == 1 else None,
        origin=f"file:{origin}",
        version=version[:32],
        mode="single" if len(cards) == 1 else "ensemble",
    )


def _homes(folder: Path) -> list[Path]:
    """Folders of a student each: `folder`, or those that its commas divide."""
    named = [folder] if folder.is_dir() else [Path(part) for part in str(folder).split(",")]
    for one in named:
        if not one.is_dir():
            raise UserError(f"--local {one} is no folder; give that of a student, run or teacher")
    return [student_folder(one) for one in named]


def _name(network: str, count: int) -> str:
    return network if count == 1 else f"{count:,} × {network}"
