"""KTAN's layer behind a local teacher: trained once for all students, and kept in the folder."""

from functools import partial

from ktan.teachers import live
from ktan.teachers.tsl_training import LayerRecipe
from tests.student_client.comparison.tables import table, weights


def test_a_layer_is_trained_once_and_found_again(compare, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "LayerRecipe", partial(LayerRecipe, steps=5))
    options = ("--local", teacher, "--seeds", "0")
    code, _, err = compare("ktan", *options)
    assert (code, err) == (0, "")
    rows = {row["method"]: row["teacher"] for row in table(tmp_path / "table")["rows"]}
    assert rows == {"local": "none", "ktan": "local"}
    (kept,) = (tmp_path / "table").glob("tsl-*.safetensors")
    content = kept.read_bytes()

    def never(*_):
        raise AssertionError("trained anew")

    monkeypatch.setattr(live, "train_layers", never)
    before = weights(tmp_path / "table")["ktan-local-0"]
    code, _, err = compare("ktan", *options[:2], "--seeds", "0,1", "--resume")
    assert (code, err) == (0, "")
    assert kept.read_bytes() == content
    after = weights(tmp_path / "table")
    assert all((after["ktan-local-0"][name] == before[name]).all() for name in before)
    assert any((after["ktan-local-1"][name] != before[name]).any() for name in before)
