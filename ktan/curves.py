"""The picture of a run: a panel for each loss term, and one for the accuracies."""

from pathlib import Path
from typing import TYPE_CHECKING

from ktan.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ACCURACY = "accuracy"


def draw_curves(history: History, title: str = "") -> "Figure":
    """Every curve against the step: a panel each, but all accuracies in one, the last."""
    # Not pyplot: it would pick a window system and keep global state. Slow to import.
    from matplotlib.figure import Figure

    accuracies = [name for name in history.curves if name.endswith(_ACCURACY)]
    panels = [[name] for name in history.curves if name not in accuracies]
    panels += [accuracies] if accuracies else []
    columns = min(3, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    figure = Figure(figsize=(4.2 * columns, 3 * rows), layout="constrained")
    for number, names in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        for name in names:
            steps, values = zip(*history.curves[name], strict=True)
            axes.plot(steps, values, label=name.removesuffix(_ACCURACY).strip("_") or name)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if names is accuracies:
            axes.set_title(_ACCURACY, fontsize="medium")
            axes.set_ylim(0, 1.02)
            axes.legend(fontsize="small")
        else:
            axes.set_title(f"{names[0].replace('_', ' ')} loss", fontsize="medium")
    if title:
        figure.suptitle(title)
    return figure


def plot_curves(history: History, path: Path, title: str = "") -> None:
    """Writes `draw_curves` as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(history, title).savefig(path, dpi=120)
