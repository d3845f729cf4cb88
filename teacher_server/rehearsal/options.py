"""What a rehearsal can be told: its synthetic teachers, its budget, and which world it is in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ktan.errors import UserError
from privacy.budget import BudgetPlan, open_plan
from privacy.noise import DEFAULT_NOISE, Closeness, NoiseName, closeness

_UNLIMITED_EPSILON: Final = 1.5e6
"""At δ = 1e-5 μ² = 3·10⁶: that many trials of μ = 1, and within what 62 bits count."""
_UNLIMITED_DRAWS: Final = 2**44


@dataclass(frozen=True)
class RehearsalOptions:
    """The synthetic teachers, their budget, and in which of two adjacent worlds they are."""

    world: int = 0
    """0 or 1: the content of the one shard that adjacency replaces."""
    teachers: int = 4
    """k, the replaced one included."""
    tap: tuple[str, ...] = ("logits:4:2", "probabilities:4", "hint:8:1")
    """NAME:DIMENSION:BOUND; NAME is logits, probabilities (its bound is 1), or one of hint, tsl,
    attention, signs and products, with .ANY behind it for a second one."""
    like: Path | None = None
    """A trained teacher's folder: k, taps and bounds from its public card; no weights are read."""
    radius: int | None = None
    """Grid radius R of every tap; from --epsilon and --answers, as a service has it, when not
    given."""
    epsilon: float = 8.0
    """ε of the ledger's budget."""
    delta: float = 1e-5
    """δ of the ledger's budget."""
    unlimited: bool = False
    """Open the throw-away ledger with a budget that no audit exhausts. Radii are still those of
    --epsilon and --answers."""
    noise: NoiseName = DEFAULT_NOISE
    """Which sampler."""

    def check(self) -> None:
        """Raises UserError for values that no rehearsal can have."""
        if self.world not in (0, 1):
            raise UserError(f"--world is 0 or 1, not {self.world}")
        if self.teachers < 1:
            raise UserError(f"--teachers must be at least 1, not {self.teachers}")

    @property
    def served_plan(self) -> BudgetPlan:
        """The plan whose budget the radii divide."""
        return open_plan(self.epsilon, self.delta, closeness=closeness(self.noise))

    @property
    def ledger_plan(self) -> BudgetPlan:
        """The plan of the throw-away ledger.

        An unlimited one promises nothing of use (its ε is past a million, where the sampler's own
        error could not be counted): it is there to be spent.
        """
        if not self.unlimited:
            return self.served_plan
        return open_plan(
            _UNLIMITED_EPSILON, 1e-5, draws=_UNLIMITED_DRAWS, closeness=Closeness(0.0, 0.0)
        )
