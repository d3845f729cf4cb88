"""Trains the teacher-to-student layers (TSL) of private teachers (`ktan.teachers.tsl`).

The layers of an ensemble or a single teacher are trained like the teachers: layer i on the records
of shard i, behind teacher i as it is, through a classifier of its own; so it is a function of shard
i, public data and the seed, and is covered by the promise as teacher i is.

The layer behind a `dp-sgd` teacher sees public samples only, and in place of labels what that
teacher says of them: a function of the DP-SGD weights and of public data, hence post-processing,
without a charge.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ktan.data import Dataset, Split, shards
from ktan.data.split import Indices
from ktan.networks import NetworkSpec, build
from ktan.ranks import ALONE, Ranks
from ktan.tap_reader import tap_shapes
from ktan.taps import Tap
from ktan.teachers import Mode, Stack
from ktan.teachers.stack import State
from ktan.teachers.tsl import PARTS, layer_in, layer_name, new_layer, without_layers
from teacher_server.training.ensemble import train_stacks
from teacher_server.training.progress import training_bar
from teacher_server.training.recipe import EnsembleRecipe, seed_of

_BATCH = 32
_RATE = 3e-3
_CLASSIFIER = ("classifier.weight", "classifier.bias")


def layer_recipe(recipe: EnsembleRecipe, steps: int) -> EnsembleRecipe:
    """How layers are trained behind teachers that were trained by `recipe`."""
    return replace(
        recipe,
        steps=steps,
        batch=_BATCH,
        learning_rate=_RATE,
        optimiser="adam",
        weight_decay=0.0,
    )


class LayerLearner:
    """A layer and its classifier, behind a frozen teacher; what `train_stacks` trains.

    A learner's state is the teacher's, whose parameters are its buffers, and the layer's.
    """

    has_buffers = False
    """The teacher is in evaluation mode."""

    def __init__(self, spec: NetworkSpec, tap: Tap, device: torch.device) -> None:
        self.tap = tap
        self._stack = Stack(spec, (tap,), device)
        names = [layer_name(tap, part) for part in (*PARTS, *_CLASSIFIER)]
        self._names = dict.fromkeys(names, torch.nn.Parameter(torch.empty(0)))

    def parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names of what is trained."""
        return iter(self._names.items())

    def logits(self, state: State, samples: Tensor, *, training: bool = False) -> Tensor:
        """What the classifier makes of the layer's output: [n, classes]."""
        feature = self._stack.features(state, samples)[str(self.tap.path)].detach()
        layer = layer_in(state, self.tap)
        assert layer is not None
        values = layer(feature)
        pooled = values.mean(dim=(2, 3)) if values.ndim == 4 else values
        weight, bias = (state[layer_name(self.tap, part)] for part in _CLASSIFIER)
        return torch.nn.functional.linear(pooled, weight, bias)

    def is_random(self) -> bool:
        """Nothing is drawn."""
        return False


def train_layers(
    weights: State,
    taps: Sequence[Tap],
    samples: Tensor,
    labels: Tensor,
    shards: Sequence[Indices],
    recipe: EnsembleRecipe,
    *,
    device: torch.device,
    start: State | None = None,
    folder: Path | None = None,
    ranks: Ranks = ALONE,
    whole: bool = True,
    stopping: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda _teachers: None,
) -> State:
    """The layers of all k teachers for those of `taps` that are TSLs: `tsl:TAP:PART` → [k, ...].

    `weights`: the trained teachers, name → [k, ...]; `samples` and `shards` as `train_ensemble` has
    them; `recipe`: a `layer_recipe`. `start`: a public network's state with its layers (without the
    leading k), as which all layers begin; fresh ones otherwise. Interrupted, resumed and divided
    among ranks as `train_ensemble`.
    """
    networks = without_layers(weights)
    layers: dict[str, Tensor] = {}
    for tap in (tap for tap in taps if tap.kind == "tsl"):
        learner = LayerLearner(recipe.spec, tap, device)
        first = _first(tap, recipe, len(shards), start)
        trained = train_stacks(
            learner, {**networks, **first}, samples, labels, shards, recipe, device=device,
            folder=folder, name=f"tsl-{'-'.join(tap.paths)}", ranks=ranks, whole=whole,
            stopping=stopping, on_step=on_step,
        )  # fmt: skip
        names = (layer_name(tap, part) for part in PARTS)
        layers.update({name: trained[name] for name in names if name in trained})
    return layers


def train_teachers_layers(
    weights: State,
    taps: Sequence[Tap],
    dataset: Dataset,
    parts: Split,
    mode: Mode,
    recipe: EnsembleRecipe,
    *,
    device: torch.device,
    start: State | None,
    folder: Path,
    progress: bool,
    ranks: Ranks = ALONE,
    whole: bool = True,
) -> State:
    """The layers of finished teachers, see `train_layers`: on their shards, or, for `dp-sgd`, on
    all public samples and the teacher's own opinion of them.

    Raises KeyboardInterrupt on ctrl-C, after the state is kept in `folder`.
    """
    taps = [tap for tap in taps if tap.kind == "tsl"]
    if not taps:
        return {}
    k = len(next(iter(weights.values())))
    if mode == "dp-sgd":
        places = torch.from_numpy(np.concatenate([parts.unlabelled, parts.labelled]))
        samples = dataset.samples[places]
        labels = _opinions(weights, recipe, samples, device)
        dealt: Sequence[Indices] = [np.arange(len(samples))]
    else:
        places = torch.from_numpy(parts.private)
        samples, labels = dataset.samples[places], dataset.labels[places]
        dealt = shards(dataset.unit_ids[parts.private], k, parts.recipe.seed)
    with training_bar("layers", recipe.steps * k * len(taps), folder, progress) as (
        stopping,
        on_step,
    ):
        return train_layers(
            weights, taps, samples, labels, dealt, recipe, device=device, start=start,
            folder=folder, ranks=ranks, whole=whole, stopping=stopping, on_step=on_step,
        )  # fmt: skip


def fresh_layers(taps: Sequence[Tap], recipe: EnsembleRecipe, k: int) -> State:
    """Untrained layers of k teachers for those of `taps` that are TSLs."""
    layers: dict[str, Tensor] = {}
    for tap in (tap for tap in taps if tap.kind == "tsl"):
        with torch.random.fork_rng(devices=[]):
            network = build(recipe.spec)
        channels = tap_shapes(network, recipe.spec.input_shape, tap.paths)[str(tap.path)][0]
        fresh = [new_layer(channels, tap.shape, seed_of(recipe.seed, i, 2)) for i in range(k)]
        layers |= {
            layer_name(tap, part): torch.stack([layer[part] for layer in fresh]) for part in PARTS
        }
    return layers


def _opinions(
    weights: State, recipe: EnsembleRecipe, samples: Tensor, device: torch.device
) -> Tensor:
    """int64 [n]: the class that the one teacher in `weights` gives each of `samples`."""
    stack = Stack(recipe.spec, (Tap("logits", "logits"),), device)
    own = {name: value.to(device) for name, value in weights.items()}
    return torch.cat(
        [
            stack.read(own, recipe.normalise(samples[part].to(device)))["logits"][0]
            .argmax(dim=1)
            .cpu()
            for _, part in stack.chunks(1, len(samples))
        ]
    )


def _first(tap: Tap, recipe: EnsembleRecipe, k: int, start: State | None) -> dict[str, Tensor]:
    """The states in which the layers and classifiers of k teachers begin."""
    if start is None:
        layers = dict(fresh_layers([tap], recipe, k))
    else:
        own = {name: start[name] for name in (layer_name(tap, part) for part in PARTS)}
        layers = {name: value.expand(k, *value.shape) for name, value in own.items()}
    weight, bias = (layer_name(tap, part) for part in _CLASSIFIER)
    layers[weight] = torch.zeros(k, recipe.spec.classes, tap.shape[0])
    layers[bias] = torch.zeros(k, recipe.spec.classes)
    return layers
