"""Means, spreads and paired differences against figures by hand, on screen and in files."""

import csv
import json

import pytest

from student_client.comparison.files import CSV, JSON, MARKDOWN, PICTURE, write_table
from student_client.comparison.picture import draw_table
from student_client.comparison.table import Spread, table_of
from student_client.comparison.text import TABLE_WIDTH, screen_text
from student_client.describe import WIDTH


@pytest.fixture
def outcomes(outcome):
    return [
        outcome("local", "none", 0, 0.80),
        outcome("local", "none", 1, 0.82),
        outcome("local", "none", 2, 0.84),
        outcome("ktan", "local", 0, 0.81),
        outcome("ktan", "local", 1, 0.85),
        outcome("ktan", "local", 2, 0.86),
        outcome("ktan", "remote", 0, 0.79, epsilon=1.0),
        outcome("ktan", "remote", 1, 0.80, epsilon=3.0),
        # Not of a seed that the student alone has finished.
        outcome("fsp", "local", 7, 0.5),
    ]


def test_a_spread_is_of_a_sample() -> None:
    assert Spread.of([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(7**0.5), 3)
    assert Spread.of([0.5]) == Spread(0.5, None, 1)
    assert Spread.of([]) is None


def test_differences_are_paired_by_seed(outcomes):
    rows = table_of(reversed(outcomes))
    assert [(row.method, row.teacher) for row in rows] == [
        ("ktan", "local"), ("local", "none"), ("ktan", "remote"), ("fsp", "local"),
    ]  # fmt: skip
    best, alone, private, unpaired = rows
    # Differences 0.01, 0.03, 0.02: the pairs spread less than the accuracies do.
    assert best.accuracy == Spread(pytest.approx(0.84), pytest.approx(0.0007**0.5), 3)
    assert best.difference == Spread(pytest.approx(0.02), pytest.approx(0.01), 3)
    assert best.accuracy.sd > 2 * best.difference.sd
    assert alone.is_baseline
    assert alone.difference is None
    assert private.difference == Spread(pytest.approx(-0.015), pytest.approx(0.005 * 2**0.5), 2)
    assert private.privacy.epsilon_spent == 3.0
    assert unpaired.difference is None
    assert unpaired.accuracy.sd is None


def test_students_that_diverged_are_counted_apart(outcomes, outcome, facts):
    broken = [outcome("fsp", "local", seed, None) for seed in (0, 1)]
    gone = [outcome("kd-svd", "local", seed, None) for seed in (0, 1, 2)]
    rows = table_of([*outcomes, *broken, *gone])
    assert [(row.method, row.diverged) for row in rows[-2:]] == [
        ("fsp", (0, 1)), ("kd-svd", (0, 1, 2)),
    ]  # fmt: skip
    assert (rows[-1].accuracy, rows[-1].difference) == (None, None)
    text = screen_text(rows, facts)
    assert "1 of 3, 2 diverged" in text
    assert "0 of 3, 3 diverged" in text
    left, _ = draw_table(rows, facts).axes
    assert "kd-svd (local)" not in [label.get_text() for label in left.get_yticklabels()]


def test_the_table_fits_100_columns_and_its_legend_80(outcomes, outcome, facts):
    long = outcome("attention-transfer+byot+soft-logits", "remote", 0, 0.7)
    text = screen_text(table_of([*outcomes, long]), facts)
    table, legend = text.split("\n\n")
    assert all(len(line) <= TABLE_WIDTH for line in table.splitlines())
    assert all(len(line) <= WIDTH for line in legend.splitlines())
    lines = {tuple(line.split()[:2]): line for line in table.splitlines()}
    assert "84.00 ± 2.65" in lines["ktan", "local"]
    assert "+2.00 ± 1.00" in lines["ktan", "local"]
    assert "3 of 3" in lines["ktan", "local"]
    assert "unprotected" in lines["ktan", "local"]
    assert "-1.50 ± 0.71" in lines["ktan", "remote"]
    assert "2 of 3" in lines["ktan", "remote"]
    assert "ε = 3 of 4" in lines["ktan", "remote"]
    assert "the student alone" in table
    legend = " ".join(legend.split())
    assert "78,042 parameters, 12.5 million multiply-adds" in legend
    assert "(6 × the student's), 4 × its multiply-adds;" in legend
    assert "the student is 3.9 × as fast" in legend
    assert "ε = 3 of 4 at δ = 1e-5, replace-one, ensemble; for all rows together" in legend


def test_the_files_hold_the_same_figures(outcomes, facts, tmp_path):
    content = write_table(tmp_path, table_of(outcomes), facts)
    assert json.loads((tmp_path / JSON).read_text()) == json.loads(json.dumps(content))
    with (tmp_path / CSV).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["teacher"]) for row in rows] == [
        ("ktan", "local"), ("local", "none"), ("ktan", "remote"), ("fsp", "local"),
    ]  # fmt: skip
    assert float(rows[0]["difference_mean"]) == pytest.approx(0.02)
    assert float(rows[0]["compression"]) == pytest.approx(6)
    assert float(rows[0]["multiply_adds_saving"]) == 4
    assert float(rows[0]["speed_up"]) == 3.9
    # A remote teacher's network is nobody's business: nothing to be smaller than.
    assert (rows[2]["compression"], rows[2]["speed_up"]) == ("", "")
    assert (rows[2]["epsilon_spent"], rows[2]["epsilon"], rows[2]["delta"]) == (
        "3.0",
        "4.0",
        "1e-05",
    )
    assert [row["privacy"] for row in rows[:2]] == [
        "unprotected, for comparison", "local loss only, no teacher",
    ]  # fmt: skip
    assert content["rows"][0]["accuracies"] == {"0": 0.81, "1": 0.85, "2": 0.86}
    page = (tmp_path / MARKDOWN).read_text()
    assert (
        "| ktan | local | 84.00 ± 2.65 | +2.00 ± 1.00 | 3 of 3 | 78,042 | 12,500,000 | 6 × | "
        in page
    )
    assert {len(line.split("|")) for line in page.splitlines() if line.startswith("|")} == {12}
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_picture_shows_every_row_and_the_student_alone(outcomes, facts):
    figure = draw_table(table_of(outcomes), facts)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "ktan (local)", "the student alone", "ktan (remote)", "fsp (local)",
    ]  # fmt: skip
    means = [bars.lines[0].get_xdata()[0] for bars in left.containers]
    assert means == pytest.approx([84, 82, 79.5, 50])
    assert [bars.lines[0].get_xdata()[0] for bars in right.containers] == pytest.approx([2, -1.5])
    (half,) = {
        round(segment[1][0] - segment[0][0], 6) / 2
        for segment in right.containers[0].lines[2][0].get_segments()
    }
    assert half == pytest.approx(1)
    assert left.lines[-1].get_xdata() == pytest.approx([82, 82])
    # The best stands on top.
    assert left.get_ylim()[0] > left.get_ylim()[1]
