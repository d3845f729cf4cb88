"""A teacher on this machine: an exported student, a finished run, or a teacher's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ktan.card_file import CARD_FILE
from ktan.errors import UserError
from ktan.networks.measure import Size, size_of
from ktan.precision import Precision
from ktan.teachers import FILES, TeacherCard
from ktan.teachers.live import LiveTeacher
from student_client.provenance import Provenance, unprotected
from student_client.public_data import PublicData, check_suits
from student_client.student_card import read_student, student_folder


@dataclass(frozen=True, eq=False)
class LocalTeacher:
    """A live teacher, and what a reader of the table must know of it."""

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
    folder: Path, public: PublicData, device: torch.device, precision: Precision
) -> LocalTeacher:
    """The teacher in `folder`. Raises UserError when there is none or it does not suit the data."""
    whose = f"the teacher in {folder}"
    options: dict[str, Any] = {"device": device, "precision": precision}
    if all((folder / name).exists() for name in FILES):
        card = TeacherCard.read(folder)
        check_suits(public, card.input_dtype, card.input_shape, card.classes, whose)
        count = f"{card.teachers:,} × " if card.teachers > 1 else ""
        return LocalTeacher(
            live=LiveTeacher.load(folder, **options),
            name=f"{count}{card.network.name}",
            accuracy=None,
            origin=f"file:{folder}",
            version=card.version,
            mode=card.mode,
        )
    if not folder.is_dir():
        raise UserError(f"--local {folder} is no folder; give that of a student, run or teacher")
    home = student_folder(folder)
    network, own = read_student(home)
    check_suits(public, own.input_dtype, own.network.input_shape, own.classes, whose)
    return LocalTeacher(
        live=LiveTeacher([network], own.network, own.normalisation, (), **options),
        name=own.network.name,
        accuracy=own.test_accuracy,
        origin=f"file:{home / CARD_FILE}".removesuffix(f"/{CARD_FILE}"),
        version=own.weights_sha256[:32],
        mode="single",
    )
