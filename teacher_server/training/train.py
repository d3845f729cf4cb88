"""From private records to a teacher's folder: reference, training, alignment, charge, seal.

public labels ─► reference network ─► start, frames and bounds ─┐
private shards ─► k teachers ─────────► alignments ─────────────┴─► card + weights, sealed
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ktan.data import Augment, Dataset, Split, shards
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build, multiply_adds
from ktan.precision import resolve_device
from ktan.taps import Tap, parse_taps, tap_shapes
from ktan.teachers import TeacherCard, folder_contents, require_free, write_folder
from ktan.teachers.stack import State, new_states
from ktan.teachers.tsl import without_layers
from ktan.threads import suit_threads
from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from teacher_server.training.dp_sgd import DpSgdRecipe, train_dp_sgd
from teacher_server.training.ensemble import EnsembleRecipe, train_ensemble
from teacher_server.training.integrity import MAC_FILE, Mac, seal, weights_mac
from teacher_server.training.options import (
    TeacherOptions,
    chosen_augment,
    chosen_network,
    chosen_optimiser,
)
from teacher_server.training.progress import training_bar
from teacher_server.training.reference import (
    align_teachers,
    is_aligned,
    measure_reference,
    needs_public,
    public_normalisation,
)
from teacher_server.training.training_privacy import training_privacy
from teacher_server.training.tsl import (
    fresh_layers,
    layer_recipe,
    train_layers,
    train_teachers_layers,
)
from teacher_server.training.unfinished import Unfinished

_REFERENCE_BATCH = 32
_REFERENCE_RATE = 1e-3
_MEASURED = 5000
"""Public samples that the normalisation is taken from, at most."""


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
) -> TeacherCard:
    """Trains on `parts.private`, writes the folder `out`, returns its card.

    ctrl-C leaves the state of training in `OUT.partial`, and `resume` goes on from it to the same
    weights (a `dp-sgd` teacher: with fresh noise, under the same version and charge).

    Raises UserError for options that contradict one another or the data, KeyboardInterrupt on
    ctrl-C, and what `custody.charge` raises.
    """
    require_free(out)
    options.check()
    work = _plan_work(dataset, parts, options, custody)
    split = parts.to_json()
    same = {**work.settings, "mode": options.mode, "teachers": options.k, "split": split}
    same |= {"network": work.recipe.spec.to_json(), "ledger": custody.ledger_id}
    unfinished = Unfinished.open(out, same, resume=resume)
    rows = options.chunk if options.mode == "dp-sgd" else options.batch
    suit_threads(multiply_adds(work.recipe.spec) * rows)
    reference_state, origin = _reference_state(work, unfinished)
    reference = measure_reference(
        reference_state,
        work.recipe.spec,
        work.taps,
        options.mode,
        work.public,
        options.bound_quantile,
        origin,
        work.device,
    )
    # Without the leading 1.
    first = {name: value[0] for name, value in reference_state.items()}
    start = first if options.start == "reference" else None
    weights = _train(work, unfinished, start, custody, progress)
    layers = train_teachers_layers(
        weights,
        work.taps,
        dataset,
        parts,
        options.mode,
        layer_recipe(work.recipe, options.tsl_steps),
        device=work.device,
        start=None if options.mode == "dp-sgd" else start,
        folder=unfinished.folder,
        progress=progress,
    )
    weights = {**weights, **layers}
    alignments = align_teachers(weights, work.recipe.spec, reference, work.public, work.device)
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


@dataclass(frozen=True, eq=False)
class _Work:
    """What is to be done, decided from options, ids and public data before anything is trained."""

    dataset: Dataset
    parts: Split
    options: TeacherOptions
    recipe: EnsembleRecipe
    taps: tuple[Tap, ...]
    public: Tensor
    """Normalised public samples for alignment and bounds."""
    settings: dict[str, Any]
    device: torch.device


def _plan_work(dataset: Dataset, parts: Split, options: TeacherOptions, custody: Custody) -> _Work:
    if len(parts.private) == 0:
        raise UserError("the split keeps no private records; raise --private")
    if options.mode == "dp-sgd":
        _require_protected_units(custody)
    device = resolve_device(options.device)
    spec = chosen_network(options, dataset.input_shape, len(dataset.classes))
    taps = _shaped_taps(options, spec)
    # Labelled ones last: they are few, and the reference knows them by heart.
    places = torch.from_numpy(parts.unlabelled), torch.from_numpy(parts.labelled)
    public = torch.cat([dataset.samples[part[:_MEASURED]] for part in places])
    measured = [tap for tap in taps if tap.kind == "tsl" or needs_public(tap, options.mode)]
    if len(public) < 2 and measured:
        raise UserError(
            f"the frame and the bound of tap {measured[0].text}, and under dp-sgd the layer of a "
            "tap tsl=..., are found on public samples, and the split has none; raise --unlabelled, "
            "or release probabilities only"
        )
    normalise = public_normalisation(public)
    optimiser, rate = chosen_optimiser(options)
    # From the number of units and k alone: the same for all teachers, whatever their shards hold.
    # The number of records would tell all of them how many stand behind one unit.
    shard = parts.counts["private"] / options.k
    recipe = EnsembleRecipe(
        spec=spec,
        normalise=normalise,
        steps=max(1, math.ceil(options.epochs * shard / options.batch)),
        batch=options.batch,
        learning_rate=rate,
        optimiser=optimiser,
        weight_decay=options.weight_decay,
        augment=Augment(chosen_augment(options, dataset.input_shape)),
        precision=options.precision,
        seed=options.seed,
        stack=options.stack if device.type == "cpu" else options.k,
    )
    settings = {
        **asdict(options),
        "optimiser": optimiser,
        "learning_rate": rate,
        "augment": recipe.augment.name,
    }
    # What does not change the result, or stands on the card already.
    for name in ("device", "chunk", "network", "network_set", "mode", "teachers"):
        del settings[name]
    return _Work(
        dataset,
        parts,
        options,
        recipe,
        taps,
        normalise(public[: options.alignment_samples]),
        settings,
        device,
    )


def _reference_state(work: _Work, unfinished: Unfinished) -> tuple[State, str]:
    """The public reference network, name → [1, ...], and what it is."""
    labelled = torch.from_numpy(work.parts.labelled)
    steps = work.options.reference_steps
    # Behind a dp-sgd teacher no reference says in which frame a layer speaks.
    taps = () if work.options.mode == "dp-sgd" else work.taps
    if len(labelled) == 0 or steps == 0:
        fresh = new_states(work.recipe.spec, [work.options.seed])
        layers = fresh_layers(taps, work.recipe, 1)
        return {**fresh, **layers}, "the norms of a network that nobody trained,"
    origin = f"the norms of a network trained on {len(labelled)} public labels,"
    kept = unfinished.reference()
    if kept is not None:
        return kept, origin
    recipe = replace(
        work.recipe,
        steps=steps,
        batch=_REFERENCE_BATCH,
        learning_rate=_REFERENCE_RATE,
        optimiser="adam",
        weight_decay=0.0,
    )
    samples, labels = work.dataset.samples[labelled], work.dataset.labels[labelled]
    shard = torch.arange(len(labelled)).numpy()
    network = train_ensemble(samples, labels, [shard], recipe, device=work.device)
    after = layer_recipe(recipe, work.options.tsl_steps)
    layers = train_layers(network, taps, samples, labels, [shard], after, device=work.device)
    state = {**network, **layers}
    unfinished.keep_reference(state)
    return state, origin


def _train(
    work: _Work, unfinished: Unfinished, start: State | None, custody: Custody, progress: bool
) -> State:
    private = torch.from_numpy(work.parts.private)
    records, labels = work.dataset.samples[private], work.dataset.labels[private]
    first = None if start is None else without_layers(start)
    options, recipe = work.options, work.recipe
    run = custody.training_run
    if options.mode == "dp-sgd":
        if run is None:
            raise UserError("a dp-sgd teacher needs a run that the ledger's plan has reserved")
        noisy = DpSgdRecipe(
            spec=recipe.spec,
            normalise=recipe.normalise,
            run=run,
            max_grad_norm=options.max_grad_norm,
            learning_rate=recipe.learning_rate,
            optimiser=recipe.optimiser,
            chunk=options.chunk,
        )
        with training_bar("dp-sgd teacher", run.steps, unfinished.folder, progress) as (
            stopping,
            on_step,
        ):
            return train_dp_sgd(
                records, labels, noisy, device=work.device, start=first,
                folder=unfinished.folder, charged=custody.charged,
                stopping=stopping, on_step=on_step,
            )  # fmt: skip
    ids = work.dataset.unit_ids[work.parts.private]
    dealt = shards(ids, options.k, work.parts.recipe.seed)
    what = f"{options.k} teachers" if options.mode == "ensemble" else "teacher"
    with training_bar(what, recipe.steps * options.k, unfinished.folder, progress) as (
        stopping,
        on_step,
    ):
        return train_ensemble(
            records, labels, dealt, recipe, device=work.device, start=first,
            folder=unfinished.folder, stopping=stopping, on_step=on_step,
        )  # fmt: skip


def _shaped_taps(options: TeacherOptions, spec: NetworkSpec) -> tuple[Tap, ...]:
    taps = parse_taps(options.taps)
    for tap in taps:
        is_aligned(tap, options.mode)  # raises for one that cannot be served
    paths = [path for tap in taps for path in tap.paths]
    with torch.random.fork_rng(devices=[]):
        network = build(spec)
    shapes = tap_shapes(network, spec.input_shape, paths)
    return tuple(tap.with_shape(spec.classes, shapes) for tap in taps)


def _require_protected_units(custody: Custody) -> None:
    """DP-SGD protects one record; the ledger may have promised more."""
    if not custody.plan.unit.startswith("record"):
        raise UserError(
            f"the ledger promises protection of a {custody.plan.unit}, who may have several "
            "records, but dp-sgd protects one record; train an ensemble"
        )
