"""A grid of proposals: every combination of what a custodian might choose, side by side.

A row is one combination (k, queries, ε, taps with their shares) under the calibration that the
service would use. Which of them to take is `privacy.audit.recommendation`.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from privacy.audit.proposal import Proposal, TapForecast, TapProposal
from privacy.errors import InvalidPlan

Forecaster = Callable[[Proposal], tuple[TapForecast, ...]]
"""What becomes of a proposal's taps; raises InvalidPlan where no service could be opened so."""


@dataclass(frozen=True)
class Row:
    """One combination of the grid.

    taps: what they will look like; empty where `refused` says why there can be no such service.
    """

    proposal: Proposal
    taps: tuple[TapForecast, ...] = ()
    refused: str = ""

    @property
    def labels(self) -> TapForecast | None:
        """The tap whose largest value names a class most reliably; None where there is none."""
        named = [tap for tap in self.taps if tap.agreement is not None]
        return max(named, key=lambda tap: tap.agreement or 0.0, default=None)

    @property
    def hints(self) -> tuple[TapForecast, ...]:
        """The taps that name no class."""
        return tuple(tap for tap in self.taps if tap.agreement is None)

    @property
    def hint_dimensions(self) -> int:
        """Values of all hints together."""
        return sum(tap.release.dimension for tap in self.hints)

    @property
    def hint_signal_to_noise(self) -> float:
        """Of the noisiest hint; 0 where there is none."""
        return min((tap.signal_to_noise for tap in self.hints), default=0.0)


def combinations(
    base: Proposal,
    teachers: Sequence[int],
    queries: Sequence[int],
    epsilons: Sequence[float],
    taps: Sequence[tuple[TapProposal, ...]],
) -> list[Proposal]:
    """`base` with every combination of the values, k changing slowest and ε fastest."""
    return [
        replace(base, teachers=k, queries=count, taps=chosen, epsilon=epsilon)
        for k, count, chosen, epsilon in itertools.product(teachers, queries, taps, epsilons)
    ]


def sweep(proposals: Iterable[Proposal], forecaster: Forecaster) -> tuple[Row, ...]:
    """A row for each proposal; one that no service could keep says so and the others go on.

    Raises InvalidPlan, the first one's, where none of them can be kept.
    """
    rows = tuple(_row(proposal, forecaster) for proposal in proposals)
    if rows and all(row.refused for row in rows):
        raise InvalidPlan(rows[0].refused)
    return rows


def _row(proposal: Proposal, forecaster: Forecaster) -> Row:
    try:
        return Row(proposal, forecaster(proposal))
    except InvalidPlan as error:
        return Row(proposal, refused=str(error))
