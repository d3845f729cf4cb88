"""From private records to a teacher's folder: reference, training, alignment, charge, seal.

public labels ─► reference network ─► start, frames and bounds ─┐
private shards ─► k teachers ─────────► alignments ─────────────┴─► card + weights, sealed
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ktan.card_file import CARD_FILE
from ktan.data import Dataset, Split
from ktan.errors import UserError
from ktan.ranks import ALONE, Ranks
from ktan.teachers import TeacherCard, folder_contents, require_free, write_folder
from ktan.teachers.stack import State
from ktan.teachers.tsl import without_layers
from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from teacher_server.training.integrity import MAC_FILE, Mac, seal, weights_mac
from teacher_server.training.options import TeacherOptions
from teacher_server.training.progress import training_bar
from teacher_server.training.reference import align_teachers, measure_reference
from teacher_server.training.shards import train_layers_of, train_shards
from teacher_server.training.start import reference_state, without_leading_one
from teacher_server.training.training_privacy import training_privacy
from teacher_server.training.unfinished import Unfinished
from teacher_server.training.work import Work, plan_work


@dataclass(frozen=True)
class Custody:
    """What the data set's ledger gives to a training, and takes from it."""

    ledger_id: str
    plan: BudgetPlan
    training_run: DpSgdRun | None
    """The reserved run that a `dp-sgd` teacher uses."""
    charge: Callable[[str, str], None]
    """Debits the run for a teacher's version and the `mac` of its finished weights, once however
    often it is called for these two; raises for other weights under a version that was charged."""
    mac: Mac
    charged: bool = False
    """Whether that run was charged for this teacher already: a crash came after the charge."""


def train_teacher(
    dataset: Dataset,
    parts: Split,
    options: TeacherOptions,
    out: Path,
    custody: Custody,
    *,
    resume: bool = False,
    progress: bool = True,
    ranks: Ranks = ALONE,
) -> TeacherCard:
    """Trains on `parts.private`, writes the folder `out`, returns its card.

    ctrl-C leaves the state of training in `OUT.partial`, and `resume` goes on from it to the same
    weights (a `dp-sgd` teacher: with fresh noise, under the same version and charge); where the
    last thing that it did was to write `out`, the teacher there is what it makes. This is rank 0 of
    `ranks`, and waits for the others' stacks (`shards.train_rank`).

    Raises UserError for options that contradict one another or the data, KeyboardInterrupt on
    ctrl-C, and what `custody.charge` raises.
    """
    finished = _finished(out) if resume else None
    if finished is None:
        require_free(out)
    options.check()
    work = plan_work(dataset, parts, options, ranks)
    if options.mode == "dp-sgd":
        _require_protected_units(custody)
    same = work.identity() | {"ledger": custody.ledger_id}
    unfinished = Unfinished.open(out, same, resume=resume)
    if finished is not None:
        unfinished.discard()
        return finished
    work.suit_threads()
    reference_weights, origin = reference_state(work, unfinished, ranks)
    reference = measure_reference(
        reference_weights,
        work.recipe.spec,
        work.taps,
        options.mode,
        work.public,
        options.bound_quantile,
        origin,
        work.device,
    )
    start = without_leading_one(reference_weights) if options.start == "reference" else None
    weights = _train(work, unfinished, start, custody, ranks, progress)
    layers = train_layers_of(work, unfinished, weights, start, ranks, progress=progress)
    weights = {**weights, **layers}
    alignments = align_teachers(weights, work.recipe.spec, reference, work.public, work.device)
    split = parts.to_json()
    card = TeacherCard(
        version=unfinished.version,
        mode=options.mode,
        teachers=options.k,
        dataset=dataset.name,
        dataset_id=dataset.id,
        classes=dataset.classes,
        input_shape=dataset.input_shape,
        input_dtype=str(dataset.samples.dtype).removeprefix("torch."),
        normalisation=work.recipe.normalise,
        network=work.recipe.spec,
        taps=reference.taps,
        ledger_id=custody.ledger_id,
        split={"recipe": split["recipe"], "counts": split["counts"]},
        unit=custody.plan.unit,
        training=work.settings,
        training_privacy=training_privacy(custody.plan, custody.training_run, options)
        if options.mode == "dp-sgd"
        else None,
    )
    contents = folder_contents(card, weights, alignments)
    if options.mode == "dp-sgd":
        # Before anything that was trained is written, and after the last state is on disk: again
        # after a crash in between it is free, for the same weights.
        custody.charge(card.version, weights_mac(contents, custody.mac))
    sealed = seal(contents, custody.mac)
    write_folder(out, card, weights, alignments, {MAC_FILE: sealed})
    unfinished.discard()
    return card


def _finished(out: Path) -> TeacherCard | None:
    """The card in `out`, which is written whole, where it is of the training at OUT.partial."""
    if not (out / CARD_FILE).exists():
        return None
    card = TeacherCard.read(out)
    return card if card.version == Unfinished.version_at(out) else None


def _train(
    work: Work,
    unfinished: Unfinished,
    start: State | None,
    custody: Custody,
    ranks: Ranks,
    progress: bool,
) -> State:
    """The trained teachers, name → [k, ...], without layers."""
    options, recipe, run = work.options, work.recipe, custody.training_run
    if options.mode != "dp-sgd":
        return train_shards(work, unfinished, start, ranks, progress=progress)
    if run is None:
        raise UserError("a dp-sgd teacher needs a run that the ledger's plan has reserved")
    # Comes with Opacus, which the other modes are without.
    from teacher_server.training.dp_sgd import DpSgdRecipe, train_dp_sgd

    private = torch.from_numpy(work.parts.private)
    noisy = DpSgdRecipe(
        spec=recipe.spec,
        normalise=recipe.normalise,
        run=run,
        max_grad_norm=options.max_grad_norm,
        learning_rate=recipe.learning_rate,
        optimiser=recipe.optimiser,
        chunk=options.chunk,
        clipping=options.clipping,
        views=options.views,
        augment=recipe.augment,
    )
    with training_bar("dp-sgd teacher", run.steps, unfinished.folder, progress) as (
        stopping,
        on_step,
    ):
        return train_dp_sgd(
            work.dataset.samples[private], work.dataset.labels[private], noisy,
            device=work.device, start=None if start is None else without_layers(start),
            folder=unfinished.folder, charged=custody.charged, stopping=stopping, on_step=on_step,
        )  # fmt: skip


def _require_protected_units(custody: Custody) -> None:
    """DP-SGD protects one record; the ledger may have promised more."""
    if not custody.plan.unit.startswith("record"):
        raise UserError(
            f"the ledger promises protection of a {custody.plan.unit}, who may have several "
            "records, but dp-sgd protects one record; train an ensemble"
        )
