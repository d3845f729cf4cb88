"""What a custodian does with a teacher: train it, and measure it on public samples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ktan.data import DataSource, SplitRecipe
from ktan.ranks import Ranks
from ktan.teachers import TeacherCard
from teacher_server.commands.data_options import Data, Recipe
from teacher_server.commands.options import Flag
from teacher_server.commands.screen import print_facts
from teacher_server.training import TeacherOptions
from teacher_server.under_ledger import evaluate_teacher, train_under_ledger

Training = Annotated[TeacherOptions, Parameter(name="*", negative="", group="Training")]
_DATA = DataSource()
_RECIPE = SplitRecipe()
_TEACHER = TeacherOptions()


def train(
    *,
    ledger: Path,
    out: Path,
    options: Training = _TEACHER,
    data: Data = _DATA,
    recipe: Recipe = _RECIPE,
    witness: Path | None = None,
    resume: Flag = False,
    rank: int | None = None,
    ranks: int | None = None,
    json: Flag = False,
) -> None:
    """Train a teacher on the private part of a data set, under that data set's ledger.

    Parameters
    ----------
    ledger
        The data set's ledger; a dp-sgd run is charged to it.
    out
        Folder that gets the teacher: weights and a card, nothing private in the card.
    witness
        The ledger's witness file, if it has moved.
    resume
        Go on from where an interrupted run stopped.
    rank
        Which of several processes this is, from 0; as torchrun says when not given. Each trains
        its part of an ensemble, and the same command goes on after a failure.
    ranks
        How many processes train the ensemble.
    json
        Print one JSON object.
    """
    part = Ranks.chosen(rank, ranks, os.environ)
    card = train_under_ledger(
        data, recipe, options, ledger, witness, out, resume=resume, ranks=part
    )
    if card is None:
        return
    facts = {"teacher": str(out), **card.to_json()} if json else _of_card(out, card)
    print_facts(facts, json)


def evaluate(
    teacher: Path, *, data: Data = _DATA, recipe: Recipe = _RECIPE, json: Flag = False
) -> None:
    """Accuracy of a teacher on public test samples: an unprotected figure, for this host only.

    Parameters
    ----------
    teacher
        The teacher's folder.
    json
        Print one JSON object.
    """
    print_facts(evaluate_teacher(teacher, data, recipe), json)


def _of_card(folder: Path, card: TeacherCard) -> dict[str, Any]:
    """What a custodian wants to see of a new teacher."""
    facts: dict[str, Any] = {
        "teacher": folder,
        "version": card.version,
        "mode": f"{card.mode}, {card.teachers} x {card.network.name}",
        "private units": f"{card.split['counts']['private']:,}",
    }
    for entry in card.taps:
        bound = f"B = {entry.bound:.4g}" if entry.bound else "unbounded"
        shape = " x ".join(map(str, entry.tap.shape))
        facts[f"tap {entry.tap.name}"] = f"{shape} values, {bound} ({entry.bound_source})"
    privacy = card.training_privacy
    if privacy is not None:
        facts["training"] = (
            f"ε = {privacy.epsilon:.3f} at δ = {privacy.delta:.3g}, {privacy.adjacency} "
            f"({privacy.epsilon_add_remove:.3f} add/remove)"
        )
    return facts
