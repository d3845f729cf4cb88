"""A student that is given away: export and evaluate."""

import json

from tests.student_client.commands import DATA


def test_an_export_carries_the_promise_and_measures_the_same(train, command, stage, tmp_path):
    train("--yes")
    code, out, _ = command("export", tmp_path / "run", "--out", tmp_path / "given", "--json")
    assert code == 0
    card = json.loads(out)
    assert card["privacy"]["promise"]["epsilon"] == 4.0
    assert card["privacy"]["ledger_id"] == stage.service.ledger_id
    assert sorted(path.name for path in (tmp_path / "given").iterdir()) == [
        "card.json",
        "weights.safetensors",
    ]
    code, out, _ = command("evaluate", tmp_path / "given", *DATA, "--json")
    assert code == 0
    measured = json.loads(out)
    assert measured["accuracy"] == card["test_accuracy"]
    assert measured["samples"] == 50
    code, out, _ = command("evaluate", tmp_path / "given", *DATA, "--part", "unlabelled")
    assert code == 0
    assert "of 60 samples (fake, unlabelled)" in out
    assert "replace-one" in out


def test_an_export_of_anything_else_is_refused(train, command, tmp_path):
    code, _, err = command("export", tmp_path, "--out", tmp_path / "given")
    assert code == 2
    assert "holds no student" in err
    train("--yes")
    (tmp_path / "given").mkdir()
    (tmp_path / "given/something").touch()
    code, _, err = command("export", tmp_path / "run", "--out", tmp_path / "given")
    assert code == 2
    assert "exists already" in err
    weights = tmp_path / "run/student/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    code, _, err = command("export", tmp_path / "run", "--out", tmp_path / "new")
    assert code == 2
    assert "is not the file that" in err
    assert not (tmp_path / "new").exists()
