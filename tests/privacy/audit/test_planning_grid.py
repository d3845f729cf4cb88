"""A grid on the command line: every combination once, one row of it recommended, and a picture."""

import json
import struct

import pytest
from matplotlib.figure import Figure

from privacy.audit.planning import forecast
from privacy.audit.proposal import Proposal, TapProposal
from privacy.audit.tap_option import alternative_taps
from privacy.errors import InvalidPlan


def test_every_combination_is_a_row_and_equals_the_forecast_of_it_alone(run) -> None:
    code, out, err = run(
        *("plan", "--teachers", "100,200", "--queries", "100,400", "--epsilon", "1,4"),
        *("--taps", "probabilities", "--taps", "hint:4,8"),
        *("--share", "probabilities=0.9", "--share", "hint=0.1", "--json"),
    )
    assert (code, err) == (0, "")
    rows = json.loads(out)["rows"]
    asked = [(r["teachers"], r["queries"], r["epsilon"], r["taps"][1]["dimension"]) for r in rows]
    assert len(set(asked)) == len(asked) == 16
    labels = TapProposal("probabilities", "probabilities", 10, 0.9)
    for row in rows[::5]:
        hint = TapProposal("hint", "hint", row["taps"][1]["dimension"], 0.1)
        alone = forecast(
            Proposal(row["epsilon"], 1e-5, row["queries"], (labels, hint), teachers=row["teachers"])
        )
        assert [tap["radius"] for tap in row["taps"]] == [tap.release.radius for tap in alone.taps]
        assert row["taps"][0]["agreement"] == alone.taps[0].agreement
        assert row["taps"][1]["signal_to_noise"] == alone.taps[1].signal_to_noise


def test_repeated_options_and_commas_say_the_same(run, tmp_path) -> None:
    commas = run("plan", "--epsilon", "1,2", "--queries", "50,60", "--json")
    assert commas == run(
        *("plan", "--epsilon", 1, "--epsilon", 2, "--queries", 50, "--queries", 60, "--json")
    )
    config = tmp_path / "audit.toml"
    config.write_text('[plan]\nepsilon = [1.0, 2.0]\nqueries = "50,60"\n')
    assert commas == run("--config", config, "plan", "--json")


def test_alternatives_of_a_hint_and_of_its_share() -> None:
    found = alternative_taps(
        ("probabilities", "hint=a:0,4", "hint=b:2"), ("hint=0.1,0.2", "hint.b=0.5"), 10
    )
    described = [[(tap.name, tap.dimension, tap.share) for tap in taps] for taps in found]
    labels, second = ("probabilities", 10, 1.0), ("hint.b", 2, 0.5)
    assert described == [
        [labels, second],
        [labels, ("hint", 4, 0.1), second],
        [labels, ("hint", 4, 0.2), second],
    ]
    with pytest.raises(InvalidPlan, match="hint:8"):
        alternative_taps(("hint:0",), (), 10)
    with pytest.raises(InvalidPlan, match="releases nothing"):
        alternative_taps(("hint:0,4",), (), 10)


def test_the_table_marks_one_row_and_gives_its_reason(run) -> None:
    code, out, _ = run("plan", "--teachers", "50,400", "--queries", "100,300", "--epsilon", "1,4")
    assert code == 0
    marked = [line.split() for line in out.splitlines() if line.startswith("►")]
    assert len(marked) == 1
    assert marked[0][1:4] == ["400", "300", "4"]
    assert "recommended  k = 400, 300 queries, ε = 4: the most queries" in out
    assert "at δ = 1e-05, replace-one" in out
    assert "--simulate" in out  # the model does not know that smaller shards teach less


def test_a_row_that_cannot_be_kept_is_named_and_the_others_go_on(run) -> None:
    code, out, _ = run("plan", "--epsilon", 4, "--queries", "100,300", "--draws", 2000)
    assert code == 0
    assert "not possible k = 200, queries 300, ε = 4: 300 queries consume 3000 noise" in out
    code, out, err = run("plan", "--epsilon", 4, "--queries", "300,400", "--draws", 2000)
    assert (code, out) == (2, "")
    assert "consume 3000 noise draws" in err


def test_where_everything_drowns_nothing_is_recommended(run) -> None:
    code, out, _ = run("plan", "--epsilon", "0.1,0.2", "--teachers", 10, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["recommended"] is None
    assert found["reason"].startswith("nothing: the noise drowns every combination")


@pytest.mark.parametrize(
    "grid",
    [
        ("--epsilon", "1,2,4", "--queries", "100,300", "--teachers", "100,200"),
        ("--epsilon", "4", "--queries", "100,1000"),
        ("--epsilon", "4", "--taps", "hint:2,4,8", "--teachers", "100,200"),
        ("--epsilon", "4"),
    ],
)
def test_the_picture_is_a_png_of_sensible_size(run, tmp_path, grid) -> None:
    picture = tmp_path / "plan.png"
    code, out, _ = run("plan", *grid, "--plot", picture)
    assert code == 0
    assert str(picture) in out
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 500 < width < 3000
    assert 300 < height < 2000
    # More than an empty pair of axes.
    assert 10_000 < len(content) < 1_000_000


def test_the_title_of_the_picture_says_what_all_its_promises_share(
    run, tmp_path, monkeypatch
) -> None:
    titles = []
    monkeypatch.setattr(Figure, "suptitle", lambda _, text, **_style: titles.append(text))
    code, _, _ = run("plan", "--epsilon", "1,4", "--plot", tmp_path / "plan.png")
    assert code == 0
    [title] = titles
    expected = "promises at δ = 1e-05, replace-one, of one record, mode ensemble; clean answers: "
    assert " ".join(title.split()).startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epsilon", "1,x"), "x"),
        (("--epsilon", "1,2", "--queries", "0"), "at least 1"),
        (("--epsilon", "1,2", "--published-rate", "0.1"), "--published-rate"),
        (
            ("--epsilon", "1,2", "--mode", "dp-sgd", "--sample-rate", "0.1", "--steps", "9"),
            "dp-sgd",
        ),
        (("--epsilon", "4", "--plot", "plan.pdf"), "a .png file"),
        (("--epsilon", "4", "--plot", "nowhere/plan.png"), "a folder that is there"),
        (("--epsilon", "4", "--dataset", "fake"), "--simulate"),
        (("--epsilon", "4", "--tolerance", "1.5"), "--tolerance"),
    ],
)
def test_a_mistake_is_one_line(run, arguments, message) -> None:
    code, out, err = run("plan", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
