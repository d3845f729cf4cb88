"""An attack beside what the claim allows: rows of a table, and whether one refutes the claim."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from privacy.audit.layout import table
from privacy.audit.membership.roc import RATES, OperatingPoint, operating_point
from privacy.audit.membership.trade_off import Claim


@dataclass(frozen=True)
class Row:
    """One attack at one false-positive rate.

    cap: highest true-positive rate that `claim` allows at the rate that was asked for.
    cap_at_bound: the same at the upper bound of the false-positive rate, which the interval of the
        true-positive rate is to be compared with.
    exceeds: whether the claim is refuted, all rows judged together being wrong with probability
        `error` at most.
    """

    attack: str
    point: OperatingPoint
    claim: Claim
    cap: float
    cap_at_bound: float
    exceeds: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values: counts and rates, the interval, cap and claim."""
        return {
            "attack": self.attack,
            **asdict(self.point),
            "true_rate": self.point.true_rate,
            "mu_low": self.point.mu,
            "claim": asdict(self.claim),
            "cap": self.cap,
            "cap_at_bound": self.cap_at_bound,
            "exceeds": self.exceeds,
        }


def judge(
    attack: str,
    members: npt.ArrayLike,
    non_members: npt.ArrayLike,
    claim: Claim,
    *,
    rates: Sequence[float] = RATES,
    comparisons: int = 1,
    error: float = 0.05,
) -> list[Row]:
    """A row for each of `rates`, from scores as `operating_point` takes them.

    comparisons: attacks that are judged together; each row gets its share of `error` (Bonferroni).
    The interval that a row shows is its own, at 95 %.
    """
    strict = 1.0 - error / (comparisons * len(rates))
    rows = []
    for rate in rates:
        judged = operating_point(members, non_members, rate, strict)
        shown = operating_point(members, non_members, rate)
        caps = float(claim.cap(rate)), float(claim.cap(shown.false_high))
        rows.append(Row(attack, shown, claim, *caps, judged.exceeds(claim)))
    return rows


COLUMNS = (
    "FPR below: upper bound of the true false-positive rate, as sure as the interval; cap there: "
    "the\ncap at that bound, which the whole interval must lie above to refute the claim"
)
"""What the less usual columns of `rows_text` are."""


def rows_text(rows: Sequence[Row]) -> list[str]:
    """The table, a line a row; rates of decisions, not percentages."""
    cells = [
        (
            row.attack,
            f"{row.point.rate:g}",
            f"{row.point.true_rate:.4f}",
            f"[{row.point.low:.4f}, {row.point.high:.4f}]",
            f"{row.cap:.4f}",
            f"{row.point.false_high:.4f}",
            f"{row.cap_at_bound:.4f}",
            f"{row.claim.epsilon:g}",
            "EXCEEDS the claim" if row.exceeds else "within",
        )
        for row in rows
    ]
    head = (
        "attack",
        "FPR",
        "TPR",
        "95 % interval",
        "cap",
        "FPR below",
        "cap there",
        "ε",
        "verdict",
    )
    return table(head, cells, left_aligned=(0, 8))
