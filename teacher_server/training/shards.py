"""The teachers of an ensemble, or a single one, on the shards of a data set: all, or one rank's."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ktan.card_file import CARD_FILE
from ktan.data import Dataset, Split, shards
from ktan.ranks import Ranks, waited
from ktan.teachers.stack import State
from ktan.teachers.tsl import without_layers
from privacy.ledger import require_bound
from teacher_server.training.ensemble import train_ensemble
from teacher_server.training.options import TeacherOptions
from teacher_server.training.progress import training_bar
from teacher_server.training.recipe import EnsembleRecipe
from teacher_server.training.start import reference_state, without_leading_one
from teacher_server.training.tsl import layer_recipe, train_teachers_layers
from teacher_server.training.unfinished import Unfinished
from teacher_server.training.work import Work, plan_work


def train_shards(
    work: Work,
    unfinished: Unfinished,
    start: State | None,
    ranks: Ranks,
    *,
    whole: bool = True,
    progress: bool = True,
) -> State:
    """The trained teachers, name → [k, ...], without layers; see `train_ensemble`."""
    private = torch.from_numpy(work.parts.private)
    records, labels = work.dataset.samples[private], work.dataset.labels[private]
    options, recipe = work.options, _own(work, unfinished)
    ids = work.dataset.unit_ids[work.parts.private]
    dealt = shards(ids, options.k, work.parts.recipe.seed)
    what = f"{options.k} teachers" if options.mode == "ensemble" else "teacher"
    if ranks.count > 1:
        what += f", rank {ranks.rank} of {ranks.count}"
    with training_bar(what, recipe.steps * options.k, unfinished.folder, progress) as (
        stopping,
        on_step,
    ):
        return train_ensemble(
            records, labels, dealt, recipe, device=work.device,
            start=None if start is None else without_layers(start), folder=unfinished.folder,
            ranks=ranks, whole=whole, stopping=stopping, on_step=on_step,
        )  # fmt: skip


def train_layers_of(
    work: Work,
    unfinished: Unfinished,
    weights: State,
    start: State | None,
    ranks: Ranks,
    *,
    whole: bool = True,
    progress: bool = True,
) -> State:
    """The layers behind the finished teachers `weights`; see `train_teachers_layers`."""
    return train_teachers_layers(
        weights,
        work.taps,
        work.dataset,
        work.parts,
        work.options.mode,
        layer_recipe(_own(work, unfinished), work.options.tsl_steps),
        device=work.device,
        start=None if work.options.mode == "dp-sgd" else start,
        folder=unfinished.folder,
        progress=progress,
        ranks=ranks,
        whole=whole,
    )


def _own(work: Work, unfinished: Unfinished) -> EnsembleRecipe:
    """The recipe of this training's states alone: a process of an earlier one may still live."""
    return replace(work.recipe, dealing=f"{unfinished.version} {work.dealt_ids()}")


def train_rank(
    dataset: Dataset, parts: Split, options: TeacherOptions, out: Path, ranks: Ranks
) -> None:
    """The stacks of a rank above 0, left in OUT.partial for rank 0, which makes the teacher.

    It opens no ledger, and joins only a training with its own settings, split and unit ids, which
    rank 0 has compared with the ledger's, on data that are bound to the same ledger. Nothing is
    done where the teacher is finished already.

    Raises UserError for other settings than the training's under way, a LedgerError for data that
    belong to another ledger or to none, KeyboardInterrupt on ctrl-C.
    """
    options.check()
    work = plan_work(dataset, parts, options, ranks)
    work.suit_threads()
    card, identity = out / CARD_FILE, work.identity()

    def look() -> list[Unfinished] | None:
        """None as long as nothing has begun, the training to join, or, at its end, none."""
        if card.exists():
            return []
        joined = Unfinished.joined(out, identity)
        return None if joined is None else [joined]

    if look() is None:
        print(f"rank {ranks.rank} of {ranks.count} waits for rank 0 to begin", file=sys.stderr)
    joined = waited(look)
    if not joined:
        return
    (unfinished,) = joined
    require_bound(dataset.location, unfinished.ledger_id)
    start = None
    if options.start == "reference":
        start = without_leading_one(reference_state(work, unfinished, ranks)[0])
    # Layers are trained behind finished teachers, of whichever rank they are.
    layered = any(tap.kind == "tsl" for tap in work.taps)
    layered = layered and ranks.rank < math.ceil(options.k / work.recipe.stack)
    weights = train_shards(work, unfinished, start, ranks, whole=layered, progress=False)
    if layered:
        train_layers_of(work, unfinished, weights, start, ranks, whole=False, progress=False)
    elif not weights:
        print(
            f"rank {ranks.rank} of {ranks.count} had no teachers to train: there are fewer stacks "
            "than ranks; a smaller --stack makes more of them",
            file=sys.stderr,
        )
