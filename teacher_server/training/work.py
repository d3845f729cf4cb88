"""What a training is going to do, before it does anything."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ktan.data import Augment, Dataset, Split, shards
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build, multiply_adds
from ktan.precision import resolve_device
from ktan.ranks import ALONE, Ranks
from ktan.tap_reader import tap_shapes
from ktan.taps import Tap, parse_taps
from ktan.threads import suit_threads
from teacher_server.training.options import (
    TeacherOptions,
    chosen_augment,
    chosen_network,
    chosen_optimiser,
)
from teacher_server.training.recipe import EnsembleRecipe
from teacher_server.training.reference import is_aligned, needs_public, public_normalisation
from teacher_server.training.stack_height import stack_height

_MEASURED = 5000
"""Public samples that the normalisation is taken from, at most."""


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be done, decided from options, ids and public data alone."""

    dataset: Dataset
    parts: Split
    options: TeacherOptions
    recipe: EnsembleRecipe
    taps: tuple[Tap, ...]
    public: Tensor
    """Normalised public samples for alignment and bounds."""
    settings: dict[str, Any]
    device: torch.device

    def identity(self) -> dict[str, Any]:
        """What an interrupted training must have been started with to be gone on with.

        It stays on the secure host: `split` and `private_ids` tell of the private units.
        """
        return {
            **self.settings,
            "mode": self.options.mode,
            "teachers": self.options.k,
            "split": self.parts.to_json(),
            "private_ids": self.dealt_ids(),
            "network": self.recipe.spec.to_json(),
        }

    def dealt_ids(self) -> str:
        """A SHA-256 of the private records' unit ids, in the order in which they are dealt.

        Positions and counts do not tell another table of ids from this one.
        """
        ids = self.dataset.unit_ids[self.parts.private]
        dealt = shards(ids, self.options.k, self.parts.recipe.seed)
        digest = hashlib.sha256()
        for part in dealt:
            digest.update(json.dumps(ids[part].tolist()).encode())
        return digest.hexdigest()

    def suit_threads(self) -> None:
        """One core an operation, where operations are small."""
        rows = self.options.chunk if self.options.mode == "dp-sgd" else self.options.batch
        suit_threads(multiply_adds(self.recipe.spec) * rows)


def plan_work(
    dataset: Dataset, parts: Split, options: TeacherOptions, ranks: Ranks = ALONE
) -> Work:
    """Raises UserError for options that contradict one another or the data."""
    if len(parts.private) == 0:
        raise UserError("the split keeps no private records; raise --private")
    if ranks.count > 1 and options.mode != "ensemble":
        raise UserError(
            f"--mode {options.mode} trains one teacher, in one process; start it without ranks "
            "(--ranks, torchrun)"
        )
    device = ranks.device(resolve_device(options.device))
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
        stack=options.stack or stack_height(spec, options.batch, options.k, device),
    )
    if options.views > 1 and recipe.augment.name == "none":
        raise UserError(
            f"--views {options.views} asks for random views, and --augment is none; name one of "
            "them, or take each record as it is (--views 1)"
        )
    settings = {
        **asdict(options),
        "optimiser": optimiser,
        "learning_rate": rate,
        "augment": recipe.augment.name,
        "stack": recipe.stack,
    }
    # What does not change the result, or stands on the card already.
    for name in ("device", "chunk", "clipping", "network", "network_set", "mode", "teachers"):
        del settings[name]
    if options.views == 1:
        del settings["views"]  # which earlier versions did not know
    return Work(
        dataset,
        parts,
        options,
        recipe,
        taps,
        normalise(public[: options.alignment_samples]),
        settings,
        device,
    )


def _shaped_taps(options: TeacherOptions, spec: NetworkSpec) -> tuple[Tap, ...]:
    taps = parse_taps(options.taps)
    for tap in taps:
        is_aligned(tap, options.mode)  # raises for one that cannot be served
    paths = [path for tap in taps for path in tap.paths]
    with torch.random.fork_rng(devices=[]):
        network = build(spec)
    shapes = tap_shapes(network, spec.input_shape, paths)
    return tuple(tap.with_shape(spec.classes, shapes) for tap in taps)
