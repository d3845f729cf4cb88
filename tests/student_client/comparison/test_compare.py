"""The compare command as its user meets it: what it trains, spends and goes on from."""

import json
import os
import signal
import tomllib

import pytest

from ktan import pupil
from tests.student_client.commands import forget
from tests.student_client.comparison.tables import PRICE, QUERIES, same, table, weights


def test_a_table_of_students_of_a_local_teacher(compare, teacher, tmp_path):
    code, out, err = compare("soft-logits,fitnet", "--local", teacher)
    assert (code, err) == (0, "")
    assert all(len(line) <= 100 for line in out.splitlines())
    found = table(tmp_path / "table")
    rows = {row["method"]: row for row in found["rows"]}
    assert {name: row["teacher"] for name, row in rows.items()} == {
        "local": "none", "soft-logits": "local", "fitnet": "local",
    }  # fmt: skip
    assert rows["fitnet"]["privacy"] == "unprotected, for comparison"
    assert rows["local"]["privacy"] == "local loss only, no teacher"
    # The table's figures are those of the students themselves.
    for name, row in rows.items():
        for seed in ("0", "1"):
            run = tmp_path / "table/runs" / f"{name}-{row['teacher']}-{seed}"
            assert (
                json.loads((run / "result.json").read_text())["accuracy"]
                == (row["accuracies"][seed])
            )
            if name != "local":
                assert row["differences"][seed] == pytest.approx(
                    row["accuracies"][seed] - rows["local"]["accuracies"][seed]
                )
    # cnn-small with one hidden layer of 32 or of 8: features 512 -> width -> 10.
    head = {width: 512 * width + width + 10 * width + 10 for width in (8, 32)}
    body = rows["local"]["parameters"] - head[8]
    assert found["teacher"]["size"]["parameters"] == body + head[32]
    assert rows["fitnet"]["compression"] == pytest.approx((body + head[32]) / (body + head[8]))
    assert found["teacher"]["speed"]["ratio"] > 0
    assert {path.name for path in (tmp_path / "table").glob("comparison.*")} == {
        "comparison.md", "comparison.csv", "comparison.json", "comparison.png",
    }  # fmt: skip
    # The three begin with the same weights and differ in what they are taught.
    trained = weights(tmp_path / "table")
    assert len(trained) == 6
    assert not same({"": trained["fitnet-local-0"]}, {"": trained["soft-logits-local-0"]})


def test_students_are_the_same_in_any_company(compare, teacher, tmp_path):
    options = ("--local", teacher, "--seeds", "3")
    assert compare("soft-logits,fitnet", *options)[0] == 0
    assert compare("fitnet,soft-logits", *options, "--together", 1, out="singly")[0] == 0
    # Who looks at views of unlabelled samples has batches of its own.
    unsure = ("--method-set", "fixmatch.threshold=0.0")
    assert compare("fixmatch,soft-logits,fitnet", *options, *unsure, out="apart")[0] == 0
    expected = weights(tmp_path / "table")
    assert same(expected, weights(tmp_path / "singly"))
    apart = weights(tmp_path / "apart")
    assert not same({"": apart.pop("fixmatch-none-3")}, {"": expected["local-none-3"]})
    assert same(expected, apart)


def test_ctrl_c_leaves_what_goes_on_exactly(compare, teacher, tmp_path, monkeypatch):
    options = ("soft-logits", "--local", teacher, "--steps", 20, "--checkpoint-every", 5)
    save, saved = pupil.save_checkpoint, []

    def interrupted(*arguments):
        save(*arguments)
        saved.append(arguments[0])
        # In the second seed, so that the first one's students are finished.
        if "-1" in arguments[0].parent.name:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(pupil, "save_checkpoint", interrupted)
        code, out, _ = compare(*options)
    assert code == 130
    folder = tmp_path / "table"
    assert f"student-client compare --config {folder / 'config.toml'} --resume" in " ".join(
        out.split()
    )
    assert sorted(path.parent.name for path in folder.glob("runs/*/result.json")) == [
        "local-none-0", "soft-logits-local-0",
    ]  # fmt: skip
    # What is finished has its table already.
    assert {row["seeds"] for row in table(folder)["rows"]} == {1}
    code, _, err = compare(*options)
    assert code == 2
    assert "already holds a comparison; go on with it by --resume" in err
    code, out, _ = compare(*options, "--resume")
    assert code == 0
    assert "2 of 4 students before" in out
    assert compare(*options, out="whole")[0] == 0
    assert same(weights(folder), weights(tmp_path / "whole"))
    pair = [table(tmp_path / name)["rows"] for name in ("table", "whole")]
    for one, other in zip(*pair, strict=True):
        assert one["accuracies"] == other["accuracies"]


def test_a_student_that_diverges_does_not_stop_the_others(compare, teacher, tmp_path):
    options = ("--local", teacher, "--seeds", "0")
    broken = (*options, "--method-set", "fitnet.hint-weight=1e39")
    code, out, err = compare("soft-logits,fitnet", *broken)
    assert (code, err) == (0, "")
    assert "fitnet, local teacher, seed 0: DIVERGED" in out
    rows = {row["method"]: row for row in table(tmp_path / "table")["rows"]}
    assert (rows["fitnet"]["accuracy_mean"], rows["fitnet"]["diverged"]) == (None, 1)
    assert rows["fitnet"]["privacy"] == "unprotected, for comparison"
    assert "0 of 1, 1 diverged" in out
    # It is not tried again, and the others are what they are without it.
    assert "3 of 3 students before" in compare("soft-logits,fitnet", *broken, "--resume")[1]
    assert compare("soft-logits", *options, out="without")[0] == 0
    assert same(weights(tmp_path / "table"), weights(tmp_path / "without"))


def test_answers_of_a_service_are_paid_once_for_all(compare, stage, remote, tmp_path):
    code, out, err = compare("soft-logits,ktan", *remote)
    assert (code, err) == (0, "")
    assert stage.service.spent == QUERIES * PRICE
    found = table(tmp_path / "table")
    rows = {row["method"]: row for row in found["rows"]}
    for name in ("soft-logits", "ktan"):
        assert rows[name]["teacher"] == "remote"
        assert rows[name]["epsilon_spent"] == pytest.approx(4 * QUERIES * PRICE / 10_000_000)
        assert "of 4 at δ = 1e-5, replace-one, ensemble" in rows[name]["privacy"]
        # What the service's teacher is, nobody knows.
        assert (rows[name]["compression"], rows[name]["speed_up"]) == (None, None)
    assert "for all rows together" in " ".join(out.split())
    # All seeds ask the same, and the student alone asks nothing.
    results = [
        json.loads((tmp_path / f"table/runs/{name}/result.json").read_text())
        for name in ("ktan-remote-0", "ktan-remote-1", "soft-logits-remote-0", "local-none-0")
    ]
    assert len({result["answers"]["selection_sha256"] for result in results[:3]}) == 1
    assert results[3]["answers"] is None
    # Grown by a method and a seed: the same answers serve again, from their store.
    calls = len(stage.service.calls)
    stage.stop()
    code, out, _ = compare("soft-logits,ktan,fitnet", *remote, "--seeds", "0,1,2", "--resume")
    stage.start()
    assert code == 0
    assert "6 of 12 students before" in out
    assert len(stage.service.calls) == calls
    assert {
        row["method"]: row["seeds"] for row in table(tmp_path / "table")["rows"]
    } == dict.fromkeys(("local", "soft-logits", "ktan", "fitnet"), 3)


def test_a_comparison_is_resumed_under_its_own_options_only(compare, command, teacher, tmp_path):
    options = ("soft-logits", "--local", teacher, "--seeds", "0")
    own = ("--method-set", "soft-logits.kd-weight=0.5", "--validation", "7")
    assert compare(*options, *own)[0] == 0
    code, _, err = compare(*options, "--resume")
    assert code == 2
    assert "was begun with --method-set" in err
    assert "was begun with --validation" in compare(*options, *own[:2], "--resume")[2]
    config = tmp_path / "table/config.toml"
    recorded = tomllib.loads(config.read_text())["compare"]
    assert (recorded["methods"], recorded["seeds"]) == ("soft-logits", "0")
    assert "seed" not in recorded
    result = json.loads((tmp_path / "table/runs/soft-logits-local-0/result.json").read_text())
    assert result["method_options"]["kd_weight"] == 0.5
    assert result["validation_samples"] == 7
    assert "validation_accuracy" in result["last"]
    # As a version that did not have these options recorded it.
    forget(config, "local-draw", "skip-impossible", "unlabelled-batch", "all-taps")
    assert (
        "was begun with --local-draw mean, now it is one"
        in compare(*options, *own, "--local-draw", "one", "--resume")[2]
    )
    code, out, err = command("compare", "--config", config, "--resume")
    assert (code, err) == (0, "")
    assert "2 of 2 students before" in out
    # A comparison is no run.
    code, _, err = command("train", "none", "--out", tmp_path / "table", "--resume")
    assert code == 2
    assert "is not of `student-client train`" in err


def test_both_teachers_stand_in_one_table(compare, stage, remote, teacher, tmp_path):
    code, _, err = compare("soft-logits", *remote, "--local", teacher, "--seeds", "0")
    assert (code, err) == (0, "")
    rows = table(tmp_path / "table")["rows"]
    assert {(row["method"], row["teacher"]) for row in rows} == {
        ("local", "none"), ("soft-logits", "local"), ("soft-logits", "remote"),
    }  # fmt: skip
    private = next(row for row in rows if row["teacher"] == "remote")
    assert private["compression"] is None
    # Probabilities alone are asked, and a hint once a method needs one.
    assert stage.service.spent == QUERIES * stage.service.charges[0]
    grown = compare("soft-logits,fitnet", *remote, "--local", teacher, "--seeds", "0", "--resume")
    assert (grown[0], grown[2]) == (0, "")
    assert stage.service.spent == QUERIES * PRICE
