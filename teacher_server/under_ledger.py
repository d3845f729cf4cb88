"""Trains a teacher under its data set's ledger, and measures it on public samples."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ktan.data import Dataset, DataSource, SplitRecipe
from ktan.data.split import split
from ktan.errors import UserError
from ktan.networks import multiply_adds
from ktan.ranks import ALONE, Ranks
from ktan.teachers import TeacherCard, TeacherModels
from ktan.threads import suit_threads
from privacy.composition import DpSgdRun
from privacy.errors import LedgerInUse, LedgerRolledBack
from privacy.ledger import Ledger, require_bound
from teacher_server.ledger_folder import SPLIT_FILE
from teacher_server.opening import reopen_ledger
from teacher_server.training import Custody, TeacherOptions, train_teacher
from teacher_server.training.shards import train_rank
from teacher_server.training.unfinished import Unfinished

_EVALUATION_BATCH = 512


def train_under_ledger(
    source: DataSource,
    recipe: SplitRecipe,
    options: TeacherOptions,
    ledger_folder: Path,
    witness: Path | None,
    out: Path,
    *,
    resume: bool,
    ranks: Ranks | None = None,
) -> TeacherCard | None:
    """A teacher in `out`, trained on the private part of the data that the ledger is bound to.

    Of several `ranks` each is called alike, goes on from what an earlier call has left, and only
    rank 0 opens the ledger and returns the card.

    Raises a LedgerError when the data belong to another ledger or to none, UserError when the
    split is not the recorded one or no DP-SGD run is reserved.
    """
    dataset = source.load()
    parts = split(dataset, recipe)
    if ranks is not None and ranks.rank > 0:
        train_rank(dataset, parts, options, out, ranks)
        return None
    interrupted = Unfinished.version_at(out)
    # A restarted group of ranks has nobody to say --resume.
    resume = resume or (ranks is not None and interrupted is not None)
    with _ledger_of(dataset, ledger_folder, witness) as ledger:
        if ledger.rolled_back is not None:
            raise LedgerRolledBack(0, ledger.rolled_back)
        # Records that were private once must never be public to a later teacher.
        parts.check(ledger_folder / SPLIT_FILE)
        run, charged = None, False
        if options.mode == "dp-sgd":
            run, charged = _training_run(ledger, interrupted if resume else None)
        custody = Custody(
            ledger_id=ledger.ledger_id,
            plan=ledger.plan,
            training_run=run,
            charged=charged,
            charge=partial(_charge, ledger, run),
            mac=ledger.mac,
        )
        return train_teacher(
            dataset, parts, options, out, custody, resume=resume, ranks=ranks or ALONE
        )


def _ledger_of(dataset: Dataset, folder: Path, witness: Path | None) -> Ledger:
    """The ledger, open, that the data are bound to.

    That it is theirs is looked at first, also where another process has it: nobody is sent to stop
    a service for a training that would be refused.
    """
    try:
        ledger = reopen_ledger(folder, witness)
    except LedgerInUse:
        with reopen_ledger(folder, witness, read_only=True) as served:
            require_bound(dataset.location, served.ledger_id)
        raise
    try:
        require_bound(dataset.location, ledger.ledger_id)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _training_run(ledger: Ledger, interrupted: str | None) -> tuple[DpSgdRun, bool]:
    """The run to train with, and whether it was charged for the interrupted teacher already.

    The ledger's lock is held for as long as the training runs: nobody else takes the same run.
    """
    used = ledger.training_of(interrupted) if interrupted else None
    if used is not None:
        return used.run, True
    reserved = ledger.reserved_training()
    if not reserved:
        raise UserError(
            "the ledger's plan has no DP-SGD run left; runs are reserved when the ledger is opened "
            "(--training-epsilon, --training-runs)"
        )
    return reserved[0], False


def _charge(ledger: Ledger, run: DpSgdRun | None, version: str, weights: str) -> None:
    if run is not None:
        ledger.charge_training(run, version, weights)


def evaluate_teacher(folder: Path, source: DataSource, recipe: SplitRecipe) -> dict[str, Any]:
    """Accuracy on the public test part, of the teachers together and (mean) alone.

    An unprotected release of its own, on public samples: for the custodian's eyes. Raises
    UserError when the split or the data are not those that the teacher was trained with (another
    split's test part holds records that were private), when the teacher has no tap that names
    classes, or when the test part is empty.
    """
    dataset = source.load()
    parts = split(dataset, recipe)
    models = TeacherModels.load(folder)
    known = (models.card.dataset_id, models.card.split["recipe"], models.card.split["counts"])
    if known != (dataset.id, parts.to_json()["recipe"], parts.counts):
        raise UserError(
            "the data or the split differ from those that the teacher was trained with: its "
            "private records could be among the test samples; give the options of its training"
        )
    test = torch.from_numpy(parts.test)
    if len(test) == 0:
        raise UserError("the split keeps no test samples; raise --test")
    # Chunks of an ensemble are small; those of one large network are not.
    suit_threads(multiply_adds(models.card.network) * (32 if models.card.teachers > 1 else 256))
    kinds = {entry.tap.kind: entry.tap.name for entry in models.card.taps}
    name = kinds.get("probabilities") or kinds.get("logits")
    if name is None:
        raise UserError("no tap of this teacher names classes; there is no accuracy to measure")

    def correct(part: torch.Tensor) -> tuple[int, int]:
        """How many of these samples the teachers name rightly together, and summed over each."""
        labels = dataset.labels[part]
        answers = models.answers(dataset.samples[part])[name].cpu()
        together = int((answers.mean(dim=0).argmax(dim=1) == labels).sum())
        return together, int((answers.argmax(dim=2) == labels).sum())

    torch.set_num_threads(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(correct, torch.split(test, _EVALUATION_BATCH)))
    together, alone = (sum(column) for column in zip(*counts, strict=True))
    return {
        "teacher_version": models.card.version,
        "mode": models.card.mode,
        "teachers": models.card.teachers,
        "test_samples": len(test),
        "accuracy": together / len(test),
        "mean_accuracy_alone": alone / len(test) / models.card.teachers,
        "label": "protected by its training"
        if models.card.mode == "dp-sgd"
        else "unprotected, for this host only",
    }
