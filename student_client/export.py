"""A student as its users get it: weights and a card, verified, in a folder of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.evaluation import accuracy
from ktan.precision import resolve_device
from student_client.public_data import PublicData, check_suits
from student_client.student_card import CARD, WEIGHTS, StudentCard, read_student, student_folder


def export_student(run: Path, out: Path) -> StudentCard:
    """Copies the student of a finished run to `out`, after weights and card were found to fit.

    Raises UserError when the run is not finished, or `out` holds something already.
    """
    _, card = read_student(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; export to a new folder")
    out.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CARD):
        shutil.copyfile(student_folder(run) / name, out / name)
    return card


def evaluate_student(
    folder: Path, data: DataSource, recipe: SplitRecipe, part: str, device: str
) -> dict[str, Any]:
    """Accuracy of an exported student, or of a finished run's, on one public part of a data set.

    `part`: test, labelled or unlabelled. Raises UserError when the data does not suit the student,
    or the part holds no sample with a label.
    """
    student, card = read_student(folder)
    public = PublicData.load(data, recipe)
    check_suits(public, card.input_dtype, card.network.input_shape, card.classes, "the student")
    samples, labels = public.part(part)
    known = labels >= 0
    if not bool(known.any()):
        raise UserError(f"the part '{part}' of {public.name} holds no sample with a label")
    measured = accuracy(
        student.to(resolve_device(device)),
        samples[known],
        labels[known],
        normalise=card.normalisation,
    )
    return {
        "accuracy": measured,
        "samples": int(known.sum()),
        "part": part,
        "dataset": public.name,
        "label": card.privacy.label,
        "privacy": card.privacy.to_json(),
    }
