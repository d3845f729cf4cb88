"""How the teachers of an ensemble are trained, and the seeds that follow from it."""

from dataclasses import dataclass

import numpy as np

from ktan.data import Augment, Normalisation
from ktan.networks import NetworkSpec
from ktan.optimisers import OptimiserName
from ktan.precision import Precision


@dataclass(frozen=True)
class EnsembleRecipe:
    """Public settings, and whose states they are."""

    spec: NetworkSpec
    normalise: Normalisation
    steps: int
    """Of every teacher, the same for all; from the public number of units, k and batch."""
    batch: int
    learning_rate: float
    optimiser: OptimiserName
    weight_decay: float
    augment: Augment
    precision: Precision
    seed: int
    stack: int
    """Teachers trained as one stacked computation; 1: one after another."""
    dealing: str = ""
    """Which training's states these are, and on which dealing of units: no other's are gone on with
    or taken from another process. A digest of private ids: it stays on the secure host."""

    def fingerprint(self) -> str:
        """Differs for recipes that would not continue each other's states."""
        return repr(self)


def seed_of(*numbers: int) -> int:
    """A seed that is the numbers' own: no two sequences of them share one but by chance."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
