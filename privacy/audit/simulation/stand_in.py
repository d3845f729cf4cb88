"""Which public samples stand in for private records, and how many teachers they make.

Shards get the size that the private ones will have, N/k units. A public set with fewer than N
units to spare makes fewer than k such shards; then fewer teachers are trained, and their answers
stand for all k in turn. The mean of the answers is about the same; the spread of the mean over
draws of teachers is that of the smaller number, so that a forecast errs towards too noisy.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ktan.data import Dataset, DataSource, Split, SplitRecipe, split
from privacy.audit.layout import counted
from privacy.audit.simulation.options import SimulationOptions
from privacy.errors import InvalidPlan
from privacy.ledger import overlapping_binding


@dataclass(frozen=True, eq=False)
class StandIn:
    """Public samples for one k.

    teachers: k. trained: teachers to train, at most k.
    shard: units in one shard, N/k.
    parts: `private` is what teachers learn from; `test` is held out.
    """

    dataset: Dataset
    teachers: int
    trained: int
    shard: float
    parts: Split

    @property
    def sentence(self) -> str:
        """For a screen."""
        trained = counted(self.trained, "teacher")
        done = f"k = {self.teachers:,}: {trained} on {self.shard:,.0f} public units each"
        if self.trained == self.teachers:
            return done
        return f"{done}; their answers stand for all {self.teachers:,}, the noise is that of all"


def load_public(options: SimulationOptions) -> Dataset:
    """The public data set.

    Raises InvalidPlan when none is named, or when it shares records with data that belong to a
    ledger, before any of it is read; UserError when there is none.
    """
    if options.dataset is None:
        raise InvalidPlan("--simulate trains on public data: name them with --dataset")
    source = DataSource(
        dataset=options.dataset,
        data_root=options.data_root,
        download=options.download,
        size=options.size,
        image_size=options.image_size,
        grey=options.grey,
        path_ids=options.path_ids,
    )
    _require_public(source.location)
    return source.load()


def _require_public(data: Path) -> None:
    bound = overlapping_binding(data)
    if bound is not None:
        raise InvalidPlan(
            f"{data} belongs to a ledger or shares records with data that do ({bound}): a "
            "simulation shows what teachers learn from its data without noise, which no budget "
            "pays for; name public data with --dataset, or another place of them with --data-root"
        )


def stand_in(
    dataset: Dataset, options: SimulationOptions, teachers: int, units: int | None
) -> StandIn:
    """Public samples for `teachers` teachers on shards cut from `units` private units.

    units: N; as many as the public set can spare when None.
    Raises InvalidPlan where a shard would hold less than one unit, or the public set has no room
    for two shards (one, of a single teacher); UserError where it is too small for the other parts.
    """
    recipe = SplitRecipe(
        seed=options.split_seed,
        labelled=options.labelled,
        unlabelled=options.unlabelled,
        test=options.test,
    )
    if options.test < 1:
        raise InvalidPlan(f"--test is {options.test}; at least one sample must be answered")
    whole = split(dataset, recipe)
    room = len(np.unique(dataset.unit_ids[whole.private]))
    private = room if units is None else units
    if private < teachers:
        raise InvalidPlan(
            f"{teachers} teachers need {teachers} units at least, but there are {private} "
            f"{'public units to train on' if units is None else 'private ones (--records)'}; "
            "plan fewer teachers (--teachers)"
        )
    # Whole shards of N/k units, in integers.
    fitting = min(teachers, room * teachers // private)
    fewest = min(2, teachers)
    if fitting < fewest:
        raise InvalidPlan(
            f"{dataset.name} has {room} public units to train on, and {fewest} of {teachers} "
            f"shards of {private} private units need {-(-fewest * private // teachers)}; raise "
            "--teachers or --size, lower --records, or take a larger public set"
        )
    trained = fitting if options.trained is None else min(fitting, options.trained)
    if trained < 1:
        raise InvalidPlan(f"--trained is {options.trained}; at least one teacher is needed")
    taken = private * trained // teachers
    return StandIn(
        dataset=dataset,
        teachers=teachers,
        trained=trained,
        shard=private / teachers,
        parts=split(dataset, replace(recipe, private=taken)),
    )
