from pathlib import Path

from matplotlib.image import imread

from ktan.curves import draw_curves, plot_curves
from ktan.history import History

TERMS = ("local", "kd", "hint", "adversarial", "discriminator")


def history() -> History:
    found = History()
    for step in range(1, 6):
        found.add(step, dict.fromkeys(TERMS, 1 / step))
        found.add(step, {"training_accuracy": step / 5, "discriminator_accuracy": 0.5})
    found.add(5, {"validation_accuracy": 0.9})
    return found


def test_each_term_has_a_panel_and_the_accuracies_share_one() -> None:
    axes = draw_curves(history(), title="a run").axes
    titles = [panel.get_title() for panel in axes]
    assert titles == [*(f"{name} loss" for name in TERMS), "accuracy"]
    (line,) = axes[1].get_lines()
    assert line.get_xydata().tolist() == [[step, 1 / step] for step in range(1, 6)]
    shown = [text.get_text() for text in axes[-1].get_legend().get_texts()]
    assert shown == ["training", "discriminator", "validation"]


def test_writes_a_picture_that_is_not_blank(tmp_path: Path) -> None:
    plot_curves(history(), tmp_path / "deep" / "curves.png")
    picture = imread(tmp_path / "deep" / "curves.png")
    assert picture.std() > 0.01


def test_history_survives_json() -> None:
    import json

    found = History.from_json(json.loads(json.dumps(history().to_json())))
    assert found == history()
    assert found.last("kd") == 0.2
