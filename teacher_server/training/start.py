"""What teachers begin as: one network, trained on the public labelled samples alone."""

from dataclasses import replace

import torch

from ktan.errors import UserError
from ktan.ranks import Ranks, waited
from ktan.teachers.stack import State, new_states
from teacher_server.training.ensemble import train_ensemble
from teacher_server.training.tsl import fresh_layers, layer_recipe, train_layers
from teacher_server.training.unfinished import Unfinished
from teacher_server.training.work import Work

_BATCH = 32
_RATE = 1e-3


def reference_state(work: Work, unfinished: Unfinished, ranks: Ranks) -> tuple[State, str]:
    """The public reference network, name → [1, ...], and what it is.

    Rank 0 trains it, the others wait for it: trained twice, it may differ in the last bit. Raises
    UserError where the training that they wait for is gone.
    """

    def others() -> State | None:
        if not unfinished.folder.exists():
            raise UserError(
                f"{unfinished.folder} is gone: another process has finished or deleted this "
                "training; see whether the teacher is there, or train anew"
            )
        return unfinished.reference()

    labelled = torch.from_numpy(work.parts.labelled)
    steps = work.options.reference_steps
    # Behind a dp-sgd teacher no reference says in which frame a layer speaks.
    taps = () if work.options.mode == "dp-sgd" else work.taps
    if len(labelled) == 0 or steps == 0:
        fresh = new_states(work.recipe.spec, [work.options.seed])
        layers = fresh_layers(taps, work.recipe, 1)
        return {**fresh, **layers}, "the norms of a network that nobody trained,"
    origin = f"the norms of a network trained on {len(labelled)} public labels,"
    kept = unfinished.reference() if ranks.rank == 0 else waited(others)
    if kept is not None:
        return kept, origin
    recipe = replace(
        work.recipe,
        steps=steps,
        batch=_BATCH,
        learning_rate=_RATE,
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


def without_leading_one(state: State) -> State:
    """The state [1, ...] of one network as that network's own, which others may begin as."""
    return {name: value[0] for name, value in state.items()}
