"""Whether a checkpoint, the options of a run, and its processes belong together."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ktan.checkpoint import checkpoint_state
from ktan.errors import UserError
from ktan.methods.objective import Objective
from ktan.parallel import Group
from ktan.precision import Precision
from ktan.trainer_options import TrainerOptions


def precision_of(path: Path, here: Precision) -> Precision:
    """What a checkpoint's steps were computed in; `here`: what `auto` is on this device.

    Raises UserError where there is no checkpoint.
    """
    state = checkpoint_state(path)
    recorded: Precision | None = state.get("precision")
    if recorded is not None:
        return recorded
    # An earlier version recorded no precision, and scales of fp16 alone.
    if any(state.get("scales", {}).values()):
        return "fp16"
    return "float32" if here == "fp16" else here


def check_options(path: Path, options: TrainerOptions) -> None:
    """A checkpoint goes on under the options it was made with, or the weights would differ."""
    # What is not recorded, an earlier version did not have: it did what the default does.
    made: dict[str, Any] = asdict(TrainerOptions()) | checkpoint_state(path)["options"]
    # Where and how often, not what: these may change.
    free = {"device", "checkpoint_every", "data_on", "shard"}
    for name, value in asdict(options).items():
        if name not in free and made.get(name) != value:
            raise UserError(
                f"{path} was made with --{name.replace('_', '-')} {made.get(name)}, now {value}; "
                "resume with the same options, or train into another folder"
            )


def require_shareable(objective: Objective, options: TrainerOptions, group: Group) -> None:
    """Raises UserError for what several processes cannot do together."""
    if group.count == 1:
        return
    if options.compile:
        raise UserError("--compile is for one process; leave it away")
    if objective.unlabelled:
        group.share(options.unlabelled_batch, "unlabelled")
    if not options.shard:
        return
    if options.precision == "fp16":
        raise UserError("--shard goes without fp16; choose bf16 or float32")
    bounded = [term.name for term in objective.terms if term.bounded_by is not None]
    if bounded:
        # Its gradient is looked at before the optimiser's turn, when nobody has all of it.
        raise UserError(f"--shard does not go with the term '{bounded[0]}'; leave --shard away")
