"""Which row of a grid to take: one rule, so that two people with one table take the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from privacy.audit.grid import Row
from privacy.audit.verdict import GOOD_AGREEMENT, POOR_AGREEMENT
from privacy.errors import InvalidPlan

ACCURACY_TOLERANCE = 0.02
"""What a true label may lose to the noise, where true labels are known."""

AGREEMENT_TOLERANCE = 1.0 - GOOD_AGREEMENT
"""The same for agreement with the clean label, where they are not: some of the labels that the
noise changes were wrong before."""


@dataclass(frozen=True)
class Recommendation:
    """What the rule says of a grid.

    chosen: position of the recommended row; None where no row is of use.
    best: for each ε of the grid, the position of the row that the rule would take at that ε alone,
        if any.
    tolerance: x of the rule.
    reason: one sentence.
    """

    chosen: int | None
    best: tuple[int, ...]
    tolerance: float
    reason: str


def recommend(rows: Sequence[Row], tolerance: float | None = None) -> Recommendation:
    """The row with the most queries whose labels are within x of the best clean ones.

    A label's worth is its accuracy against the true label where that is known (simulation), and
    otherwise its agreement with the clean label. *Best clean* is the highest accuracy without
    noise of any row, or 1 for agreement. Among the rows whose worth is at least that less x, the
    rule takes in turn: the most queries, the smallest ε, the highest worth, a hint over the noise
    (the most dimensions at signal-to-noise >= 1, or else the clearest), the fewest teachers. Where
    no row is within x it takes the highest worth, then the same order. Without a tap that names
    classes, worth is the signal-to-noise of the hints and the limit is 1.

    No other row is then as good in queries, ε, worth, dimensions and signal-to-noise of hints and
    better in one of them. Rows that no service could keep are left out; where fewer than half of
    the best row's labels (or, without labels, of a hint's norm) survive, nothing is recommended.

    tolerance: x; ACCURACY_TOLERANCE or AGREEMENT_TOLERANCE when None.
    Raises InvalidPlan as `check_tolerance` does.
    """
    check_tolerance(tolerance)
    known = [place for place, row in enumerate(rows) if not row.refused]
    if not known:
        return Recommendation(None, (), tolerance or 0.0, "no combination can be kept")
    true = all(_true(rows[place]) is not None for place in known)
    if tolerance is None:
        tolerance = ACCURACY_TOLERANCE if true else AGREEMENT_TOLERANCE
    limit = _limit([rows[place] for place in known], tolerance, true=true)
    chosen = _take(rows, known, limit, true=true)
    epsilons = sorted({rows[place].proposal.epsilon for place in known})
    best = [
        _take(
            rows,
            [place for place in known if rows[place].proposal.epsilon == epsilon],
            limit,
            true=true,
        )
        for epsilon in epsilons
    ]
    reason = _reason(rows, known, chosen, limit, tolerance, true=true)
    kept = tuple(place for place in best if place is not None)
    return Recommendation(chosen, kept, tolerance, reason)


def check_tolerance(tolerance: float | None) -> None:
    """Raises InvalidPlan for an x outside [0, 1)."""
    if tolerance is not None and not 0.0 <= tolerance < 1.0:
        raise InvalidPlan(f"--tolerance is {tolerance}; it must lie in [0, 1), 0.02 for two points")


def worth(row: Row, *, true: bool) -> float:
    """Of a row's labels, in [0, 1], or of its hints where it names no class; see `recommend`."""
    labels = row.labels
    if labels is None:
        return row.hint_signal_to_noise
    if true and labels.true_labels is not None:
        return labels.true_labels.noisy
    return labels.agreement or 0.0


def _limit(rows: Sequence[Row], tolerance: float, *, true: bool) -> float:
    if any(row.labels is None for row in rows):
        return 1.0
    clean = max(_true(row) or 0.0 for row in rows) if true else 1.0
    return clean - tolerance


def _take(rows: Sequence[Row], places: Iterable[int], limit: float, *, true: bool) -> int | None:
    useful = [place for place in places if _useful(rows[place])]
    within = [place for place in useful if worth(rows[place], true=true) >= limit]
    if within:
        return max(within, key=lambda place: _order(rows[place], true=true))
    return max(
        useful,
        key=lambda place: (worth(rows[place], true=true), _order(rows[place], true=true)),
        default=None,
    )


def _order(row: Row, *, true: bool) -> tuple[object, ...]:
    """Larger is better, in the order that `recommend` states."""
    ratio, dimensions = row.hint_signal_to_noise, row.hint_dimensions
    hints = (1, dimensions, ratio) if ratio >= 1.0 else (0, ratio, dimensions)
    asked = row.proposal
    return asked.queries, -asked.epsilon, worth(row, true=true), hints, -asked.teachers


def _useful(row: Row) -> bool:
    labels = row.labels
    kept = row.hint_signal_to_noise if labels is None else labels.agreement or 0.0
    return kept >= POOR_AGREEMENT


def _true(row: Row) -> float | None:
    """Accuracy of the clean labels, where it is known."""
    truth = None if row.labels is None else row.labels.true_labels
    return None if truth is None else truth.clean


def _reason(
    rows: Sequence[Row],
    known: Sequence[int],
    chosen: int | None,
    limit: float,
    tolerance: float,
    *,
    true: bool,
) -> str:
    if chosen is None:
        return (
            "nothing: the noise drowns every combination; ask fewer queries, or plan more "
            "teachers, a larger ε or another mode"
        )
    row = rows[chosen]
    asked, value = row.proposal, worth(row, true=true)
    name = f"k = {asked.teachers}, {asked.queries:,} queries, ε = {asked.epsilon:g}"
    if row.labels is None:
        found = f"a hint of signal-to-noise {value:.2f}"
        wanted = "a hint over its noise"
    elif true:
        found = f"{value:.1%} of the labels are the true ones"
        wanted = (
            f"labels within {100 * tolerance:g} points of the best clean ones "
            f"({limit + tolerance:.1%})"
        )
    else:
        found = f"{value:.1%} of the labels are the clean ones"
        wanted = f"at most {100 * tolerance:g} % of the labels changed by the noise"
    if value < limit:
        return f"{name}: no combination has {wanted}; this one is nearest: {found}"
    most = max(rows[place].proposal.queries for place in known)
    ends = "the grid has no more" if asked.queries == most else "more queries cost more than that"
    if len(known) == 1:
        ends = "the only combination"
    return f"{name}: the most queries with {wanted}: {found} ({ends})"
