"""KTAN's layer behind a local teacher: trained once for all students, and kept in the folder."""

import stat
from functools import partial

import safetensors

from ktan.teachers import live
from ktan.teachers.tsl_training import LayerRecipe
from tests.student_client.comparison.tables import table, weights


def test_a_layer_is_trained_once_and_found_again(compare, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "LayerRecipe", partial(LayerRecipe, steps=5))
    options = ("--local", teacher, "--seeds", "0")
    code, out, err = compare("ktan", *options)
    assert (code, err) == (0, "")
    # 40 with labels and 60 without.
    told = "is trained, once for all students: 5 steps on 100 public samples"
    assert " ".join(out.split()).count(told) == 1
    assert max(map(len, out.splitlines())) <= 80
    rows = {row["method"]: row["teacher"] for row in table(tmp_path / "table")["rows"]}
    assert rows == {"local": "none", "ktan": "local"}
    # Behind a teacher without noise, so not beside the table, which may be shared.
    (kept,) = (tmp_path / "table").rglob("tsl-*.safetensors")
    assert kept.parent == tmp_path / "table/runs"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with safetensors.safe_open(kept, framework="numpy") as file:
        assert file.metadata()["privacy"].startswith("unprotected")
    content = kept.read_bytes()

    def never(*_):
        raise AssertionError("trained anew")

    monkeypatch.setattr(live, "train_layers", never)
    before = weights(tmp_path / "table")["ktan-local-0"]
    code, out, err = compare("ktan", *options[:2], "--seeds", "0,1", "--resume")
    assert (code, err) == (0, "")
    assert "Layer" not in out
    assert kept.read_bytes() == content
    after = weights(tmp_path / "table")
    assert all((after["ktan-local-0"][name] == before[name]).all() for name in before)
    assert any((after["ktan-local-1"][name] != before[name]).any() for name in before)
