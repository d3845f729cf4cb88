"""A grid as a picture: what is left of the labels, against ε or what else was varied."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privacy.audit.grid import Row
from privacy.audit.grid_screen import taps_text
from privacy.audit.recommendation import Recommendation, worth

_COLOURS = ("#2a6f97", "#a63446", "#c9a227", "#3d7a4a", "#6d4c91", "#555555", "#d17a22", "#2aa198")
_STYLES = ("-", "--", ":", "-.")
_MARKERS = "osD^vPX*"
_PANELS = 6

# On a logit scale 90 and 98 % stand apart as 10 and 40 % do; 0 and 100 % have no place on it.
_LOWEST, _HIGHEST = 0.02, 0.998
_LABEL_TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)

Of = Callable[[Row], float]
_AXES: tuple[tuple[str, Of], ...] = (
    ("ε of the promise", lambda row: row.proposal.epsilon),
    ("queries answered", lambda row: row.proposal.queries),
    ("teachers k", lambda row: row.proposal.teachers),
)


def draw(rows: Sequence[Row], advice: Recommendation, path: Path, source: str) -> None:
    """Writes a PNG: a panel for each alternative of taps, a line for each (k, queries).

    source: where the clean answers come from, a sentence for the title, which begins with what the
    promises have in common. The horizontal axis is ε; where the grid has one ε only it is the
    queries, or else k. Raises OSError where it cannot be written.
    """
    known = [row for row in rows if not row.refused]
    promised = rows[0].proposal
    title = (
        f"promises at δ = {promised.delta:g}, replace-one, of one {promised.unit}, mode "
        f"{promised.mode}; {source}"
    )
    chosen = None if advice.chosen is None else rows[advice.chosen]
    alternatives = dict.fromkeys(row.proposal.taps for row in known)
    if chosen is not None and len(alternatives) > _PANELS:
        alternatives = {chosen.proposal.taps: None} | alternatives
    taps = list(alternatives)[:_PANELS]
    if len(alternatives) > _PANELS:
        title += f" ({_PANELS} of {len(alternatives)} alternatives of taps)"
    columns = min(3, len(taps))
    figure = Figure(figsize=(4.2 * columns + 2.6, 4.4 * -(-len(taps) // columns)), dpi=120)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(
        -(-len(taps) // columns), columns, sharex=True, sharey=True, squeeze=False
    ).ravel()
    true = all(row.labels is not None and row.labels.true_labels is not None for row in known)
    handles: dict[str, Any] = {}
    for panel, alternative in zip(panels, taps, strict=False):
        own = [row for row in known if row.proposal.taps == alternative]
        handles |= _panel(panel, own, known, true=true)
        panel.set_title(taps_text(alternative), fontsize=10)
        if chosen is not None and chosen.proposal.taps == alternative:
            handles["recommended"] = panel.plot(
                _axis(known)[1](chosen), _height(chosen, true=true), "*", ms=17, mfc="none",
                mec="black", mew=1.3, ls="none", zorder=5,
            )[0]  # fmt: skip
    for panel in panels[len(taps) :]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel(_unit(known, true=true))
    # Beside the legend, at about 13 characters an inch.
    width = int(13 * (figure.get_figwidth() - 2.3))
    figure.suptitle(textwrap.fill(title, width), fontsize=9, x=0.01, ha="left")
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    figure.savefig(path, format="png")


def _panel(panel: Axes, rows: Sequence[Row], known: Sequence[Row], *, true: bool) -> dict[str, Any]:
    name, of = _axis(known)
    fixed = [(label, other) for label, other in _AXES if label != name]
    keys = [tuple(other(row) for _, other in fixed) for row in known]
    first, second = (sorted({key[place] for key in keys}) for place in (0, 1))
    # The larger of the two sets gets the colours: there are more of them than of line styles.
    by_colour, by_style = (0, 1) if len(first) >= len(second) else (1, 0)
    colours, styles = (first, second) if by_colour == 0 else (second, first)
    handles: dict[str, Any] = {}
    for key in dict.fromkeys(keys):
        own = sorted((row for row in rows if _key(row, fixed) == key), key=of)
        colour = _COLOURS[colours.index(key[by_colour]) % len(_COLOURS)]
        place = styles.index(key[by_style])
        said = [_said(text, value) for (text, _), value in zip(fixed, key, strict=True)]
        # k first, as in the table.
        label = ", ".join(reversed(said))
        handles[label] = panel.errorbar(
            [of(row) for row in own],
            [_height(row, true=true) for row in own],
            yerr=[2 * _error(row, true=true) for row in own],
            color=colour, ls=_STYLES[place % len(_STYLES)], marker=_MARKERS[place % len(_MARKERS)],
            ms=4, lw=1.4, capsize=2,
        )  # fmt: skip
    if true:
        for row in {row.proposal.teachers: row for row in rows}.values():
            truth = row.labels.true_labels if row.labels else None
            if truth is not None:
                line = panel.axhline(
                    min(truth.clean, _HIGHEST), color="#999999", lw=0.8, ls=(0, (1, 2))
                )
                handles["without noise, each k"] = line
    values = sorted({of(row) for row in known})
    if len(values) > 1 and values[-1] / values[0] >= 4:
        panel.set_xscale("log")
    panel.set_xticks(values, [f"{value:g}" for value in values])
    if all(row.labels is not None for row in known):
        panel.set_yscale("logit")
        panel.set_yticks(_LABEL_TICKS, [f"{100 * tick:g}" for tick in _LABEL_TICKS])
        heights = [_height(row, true=true) for row in known]
        panel.set_ylim(max(_LOWEST, min(heights) * 0.85), min(0.999, 1 - (1 - max(heights)) / 2))
    panel.minorticks_off()
    panel.set_xlabel(name)
    panel.grid(alpha=0.25)
    return handles


def _axis(rows: Sequence[Row]) -> tuple[str, Of]:
    """The first of ε, queries and k that has several values."""
    return next((axis for axis in _AXES if len({axis[1](row) for row in rows}) > 1), _AXES[0])


def _key(row: Row, axes: Sequence[tuple[str, Of]]) -> tuple[float, ...]:
    return tuple(of(row) for _, of in axes)


def _said(axis: str, value: float) -> str:
    name, unit = {"ε": ("ε = ", ""), "queries": ("", " queries"), "teachers": ("k = ", "")}[
        axis.split()[0]
    ]
    return f"{name}{value:,g}{unit}"


def _height(row: Row, *, true: bool) -> float:
    value = worth(row, true=true)
    return value if row.labels is None else min(max(value, _LOWEST), _HIGHEST)


def _error(row: Row, *, true: bool) -> float:
    labels = row.labels
    if labels is None:
        return 0.0
    truth = labels.true_labels
    return truth.error if true and truth is not None else labels.agreement_error or 0.0


def _unit(rows: Sequence[Row], *, true: bool) -> str:
    if any(row.labels is None for row in rows):
        return "signal-to-noise of the hint"
    return f"noisy labels equal to the {'true' if true else 'clean'} ones, %"
