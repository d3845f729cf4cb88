"""A student as its users get it: weights and a card, verified, in a folder of their own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.evaluation import accuracy
from ktan.networks.exits import cut_at
from ktan.precision import resolve_device
from student_client.public_data import PublicData, check_suits
from student_client.student_card import (
    CARD,
    EXITS,
    WEIGHTS,
    StudentCard,
    read_card,
    read_exits,
    read_student,
    student_folder,
    write_student,
)


def export_student(run: Path, out: Path, exit_number: int | None = None) -> StudentCard:
    """Copies the student of a finished run to `out`, after weights and card were found to fit.

    `exit_number`: writes the student that stops at that early exit, from 1, instead; the number
    after the last is the whole student's. Raises UserError when the run is not finished, has no
    such exit, or `out` holds something already.
    """
    student, card = chosen_student(run, exit_number)
    require_new(out)
    home = student_folder(run)
    if card.cut_at is not None and read_card(home).cut_at is None:
        return write_student(out, student, card)
    out.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CARD, *([EXITS] if card.exits else [])):
        shutil.copyfile(home / name, out / name)
    return card


def chosen_student(folder: Path, exit_number: int | None) -> tuple[nn.Module, StudentCard]:
    """The student in `folder`, or what stops at one of its exits, and its card.

    Raises UserError as `read_student` does, and where there is no such exit.
    """
    student, card = read_student(folder)
    # Read even where none was asked for: they are copied with the whole student.
    heads = read_exits(folder)
    if exit_number is None:
        return student, card
    if not heads:
        raise UserError(
            f"{folder} was taught without early exits; train with --method byot for some"
        )
    if not 1 <= exit_number <= len(heads) + 1:
        raise UserError(
            f"--exit is {exit_number}, and the student has exits 1 to {len(heads) + 1}, of which "
            "the last is its own end"
        )
    if exit_number > len(heads):
        return student, card
    measured = card.exits_test_accuracy
    head = heads[exit_number - 1]
    cut = replace(
        card,
        test_accuracy=measured[exit_number - 1] if measured else None,
        exits=(),
        exits_test_accuracy=(),
        exits_sha256="",
        cut_at=head.spec,
    )
    return cut_at(card.network, student, head), cut


def require_new(out: Path) -> None:
    """Raises UserError when something is there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; export to a new folder")


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
