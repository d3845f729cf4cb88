"""What a grid looks like on a screen: a row a combination, the recommended one marked."""

from collections.abc import Sequence

from privacy.accounting import NAMES_CLASSES
from privacy.audit.grid import Row
from privacy.audit.layout import paragraph, table
from privacy.audit.proposal import TapProposal
from privacy.audit.recommendation import Recommendation

CHOSEN = "►"
BEST = "+"
_BAR = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"


def grid_text(rows: Sequence[Row], advice: Recommendation, source: Sequence[str]) -> str:
    """The report of `privacy-audit plan` on a grid.

    source: where the clean answers come from, a sentence each.
    """
    first = rows[0].proposal
    lines = [
        paragraph(
            "promise",
            f"each row keeps its ε at δ = {first.delta:g}, replace-one, of one {first.unit}, mode "
            f"{first.mode}, for all its queries together",
        )
    ]
    lines += [
        paragraph("answers" if number == 0 else "", sentence)
        for number, sentence in enumerate(source)
    ]
    taps = {taps_text(row.proposal.taps) for row in rows}
    if len(taps) == 1:
        lines.append(paragraph("taps", *taps))
    known = [row for row in rows if not row.refused]
    lines += ["", *_table(rows, advice, shown=_columns(known), name_taps=len(taps) > 1), ""]
    lines += _legend(known)
    lines += [
        paragraph("not possible", f"{_short(row)}: {row.refused}") for row in rows if row.refused
    ]
    lines.append(paragraph("recommended", advice.reason))
    return "\n".join(lines)


def taps_text(taps: Sequence[TapProposal]) -> str:
    """Such as `probabilities 90% + hint:8 10%`: each tap's share of the budget."""
    whole = sum(tap.share for tap in taps)
    parts = []
    for tap in taps:
        name = tap.name if tap.kind in NAMES_CLASSES else f"{tap.name}:{tap.dimension}"
        parts.append(name if len(taps) == 1 else f"{name} {100 * tap.share / whole:.3g}%")
    return " + ".join(parts)


def _columns(rows: Sequence[Row]) -> tuple[bool, bool, bool]:
    """Whether there are labels, true labels, hints."""
    labels = [row.labels for row in rows]
    return (
        any(tap is not None for tap in labels),
        any(tap is not None and tap.true_labels is not None for tap in labels),
        any(row.hints for row in rows),
    )


def _table(
    rows: Sequence[Row],
    advice: Recommendation,
    shown: tuple[bool, bool, bool],
    name_taps: bool,
) -> list[str]:
    labels, true, hints = shown
    head = ["", "k", "queries", "ε"]
    head += ["taps"] if name_taps else []
    head += ["σ", "s/n", "", "kept"] if labels else []
    head += ["true", "clean"] if true else []
    head += ["hint s/n"] if hints else []
    cells = [
        _mark(place, advice) + _cells(row, shown, name_taps)
        for place, row in enumerate(rows)
        if not row.refused
    ]
    left = [place for place, name in enumerate(head) if name in ("", "taps")]
    return table(head, cells, left_aligned=left)


def _mark(place: int, advice: Recommendation) -> list[str]:
    return [CHOSEN if place == advice.chosen else BEST if place in advice.best else ""]


def _cells(row: Row, shown: tuple[bool, bool, bool], name_taps: bool) -> list[str]:
    labels, true, hints = shown
    asked, tap = row.proposal, row.labels
    cells = [f"{asked.teachers:,}", f"{asked.queries:,}", f"{asked.epsilon:g}"]
    cells += [taps_text(asked.taps)] if name_taps else []
    if labels and tap is not None and tap.agreement is not None:
        noise = f"{tap.noise_sd:.3g}", f"{tap.signal_to_noise:.2f}"
        cells += [*noise, _bar(tap.agreement), _share(tap.agreement, tap.agreement_error)]
        if true and tap.true_labels is not None:
            truth = tap.true_labels
            cells += [_share(truth.noisy, truth.error), f"{truth.clean:.1%}"]
    if hints:
        found = (f"{hint.signal_to_noise:.2f}" for hint in row.hints)
        cells.append(" ".join(found) or "-")
    return cells


def _legend(rows: Sequence[Row]) -> list[str]:
    labels, true, hints = _columns(rows)
    text = f"{CHOSEN} recommended, {BEST} what the same rule takes at that ε alone. "
    if labels:
        text += (
            "σ: of the noise on each value of the label tap, relative to its bound; s/n: signal "
            "over noise of its whole vector; kept: noisy labels equal to the clean ones"
        )
        text += (
            "; true: noisy labels equal to the true ones; clean: the same before noise"
            if true
            else ""
        )
        text += "; ± two standard errors"
    if hints:
        text += "; hint s/n: the same of the hint"
    return [paragraph("", text), ""]


def _share(value: float, error: float | None) -> str:
    return f"{value:.1%} ± {200 * (error or 0.0):.1f}"


def _bar(share: float) -> str:
    whole, part = divmod(round(share * _BAR * 8), 8)
    return ("█" * whole + _EIGHTHS[part]).rstrip().ljust(_BAR)


def _short(row: Row) -> str:
    asked = row.proposal
    return f"k = {asked.teachers:,}, queries {asked.queries:,}, ε = {asked.epsilon:g}"
