"""A student for devices: raw samples in, what torch answers out, and a card that says so."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from student_client import export_model, export_onnx
from student_client.config import write_config
from student_client.export_data import public_data_of
from student_client.provenance import alone
from student_client.public_data import PublicData
from student_client.student_card import StudentCard, read_student, write_student

DATA = DataSource(dataset="fake", size=120)
RECIPE = SplitRecipe(private=20, labelled=20, unlabelled=40, test=40, seed=3)
SETTINGS = {
    "dataset": "fake", "size": 120, "private": 20, "labelled": 20, "unlabelled": 40, "test": 40,
    "split-seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def public():
    return PublicData.load(DATA, RECIPE)


@pytest.fixture(scope="module")
def run(tmp_path_factory, public):
    """A run's folder with a student of batch norm, whose weights nobody has trained."""
    folder = tmp_path_factory.mktemp("run")
    write_config(folder, SETTINGS)
    spec = NetworkSpec("resnet8", public.input_shape, len(public.classes), {"widths": [4, 4, 6, 8]})
    torch.manual_seed(0)
    student = build(spec)
    # Statistics of its own: folding them wrongly would show.
    student(public.normalisation(public.unlabelled))
    write_student(
        folder / "student",
        student,
        StudentCard(
            dataset=public.name,
            classes=public.classes,
            input_dtype=public.input_dtype,
            network=spec,
            normalisation=public.normalisation,
            method="local",
            method_options={},
            seed=0,
            steps=0,
            test_accuracy=None,
            test_samples=0,
            privacy=alone(),
            weights_sha256="",
        ),
    )
    return folder


def by_torch(run, samples):
    """Logits as `read_student`'s own documentation has them."""
    student, card = read_student(run)
    with torch.no_grad():
        return student(card.normalisation(samples)).numpy()


def facts_of(folder):
    facts = json.loads((folder / "card.json").read_text())["export"]
    content = (folder / facts["file"]).read_bytes()
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert facts["bytes"] == len(content)
    return facts


def test_int8_and_its_card(run, public, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("int8")
    code, printed, err = command(
        "export", run, "--format", "int8", "--out", out, "--calibration", "30"
    )
    assert (code, err) == (0, "")
    facts = facts_of(out)
    quantised = facts["quantisation"]
    assert quantised["calibration_samples"] == 30
    assert quantised["test_samples"] == 40
    # Both accuracies by another way.
    session = onnxruntime.InferenceSession(str(out / "student.onnx"))
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == (
        "samples", "tensor(uint8)", list(public.input_shape),
    )  # fmt: skip
    logits = session.run(["logits"], {"samples": public.test.numpy()})[0]
    hits = (logits.argmax(1) == public.test_labels.numpy()).mean()
    assert quantised["accuracy"] == pytest.approx(hits, abs=1e-6)
    exact = by_torch(run, public.test)
    hits = (exact.argmax(1) == public.test_labels.numpy()).mean()
    assert quantised["float_accuracy"] == pytest.approx(hits, abs=1e-6)
    # int8 is near, and is not float.
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.2
    kinds = {tensor.data_type for tensor in onnx.load(out / "student.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    for words in (
        "student.onnx", "samples: uint8 [batch,", "0 to 255", "at most", "float ", "Privacy",
    ):  # fmt: skip
        assert words in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 80
    # What is calibrated on is the run's own public part.
    assert facts["checked"]["samples"] == 40
    assert facts["checked"]["largest_difference"] < 1e-4


def test_torch_export_and_its_card(run, public, command, tmp_path):
    out = tmp_path / "program"
    code, printed, err = command("export", run, "--format", "torch-export", "--out", out, "--json")
    assert (code, err) == (0, "")
    facts = facts_of(out)
    assert json.loads(printed)["export"] == facts
    assert facts["input"]["range"] == [0, 255]
    program = torch.export.load(out / "student.pt2").module()
    for count in (1, 7):
        found = program(public.test[:count]).detach().numpy()
        np.testing.assert_allclose(found, by_torch(run, public.test[:count]), atol=1e-4)


class Stubborn(nn.Module):
    """Looks at a value to decide what to do: nothing that follows a network can."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.layer = nn.Linear(int(np.prod(input_shape)), classes)

    def forward(self, samples):
        logits = self.layer(samples.flatten(1))
        return logits if logits.sum().item() > 0 else -logits


def test_what_cannot_be_exported_says_so_in_a_line(run, tmp_path, command, public):
    folder = tmp_path / "stubborn"
    _, card = read_student(run)
    spec = NetworkSpec(
        "tests.student_client.test_export_formats:Stubborn", public.input_shape, len(public.classes)
    )
    write_student(folder / "student", build(spec), replace(card, network=spec))
    write_config(folder, SETTINGS)
    out = tmp_path / "out"
    code, printed, err = command("export", folder, "--format", "torch-export", "--out", out)
    assert (code, printed) == (2, "")
    assert "Stubborn cannot be exported as torch-export" in err
    assert len(err.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("form", ["onnx", "int8"])
def test_a_runtime_that_fails_says_so_in_a_line(form, run, tmp_path, monkeypatch, public):
    def broken(*_):
        raise RuntimeError("no such kernel\nand pages more")

    monkeypatch.setattr(export_model, "write_onnx", lambda deployed, example, path: None)
    if form == "int8":
        monkeypatch.setattr(export_model, "OnnxModel", lambda path: None)
        monkeypatch.setattr(export_model, "_compared", lambda *_: {})
        monkeypatch.setattr(export_model, "quantise", broken)
    else:
        monkeypatch.setattr(export_model, "OnnxModel", broken)
    with pytest.raises(UserError, match=f"as {form}: RuntimeError: no such kernel$"):
        export_model.export_model(run, tmp_path / "out", form, lambda card: public)
    assert not (tmp_path / "out").exists()


def test_int8_is_never_calibrated_on_test_samples(run, tmp_path, monkeypatch, public):
    class Seen(Exception):
        pass

    def seen(made, samples, *_):
        raise Seen(samples)

    monkeypatch.setattr(export_model, "_onnx", lambda *_: {})
    monkeypatch.setattr(export_model, "_int8", seen)
    few = replace(public, unlabelled=public.unlabelled[:3])
    with pytest.raises(Seen) as found:
        export_model.export_model(run, tmp_path / "out", "int8", lambda card: few)
    assert torch.equal(found.value.args[0], public.labelled)
    none = replace(few, unlabelled=public.unlabelled[:0], labelled=public.labelled[:0])
    with pytest.raises(UserError, match="no public samples outside its test part"):
        export_model.export_model(run, tmp_path / "out", "int8", lambda card: none)


def test_a_model_that_answers_differently_is_not_written(run, tmp_path, monkeypatch, public):
    def wrong(self, samples):
        return torch.zeros(len(samples), len(public.classes))

    def write(deployed, example, path):
        path.write_bytes(b"model")

    monkeypatch.setattr(export_model, "write_onnx", write)
    monkeypatch.setattr(export_onnx.OnnxModel, "__init__", lambda self, path: None)
    monkeypatch.setattr(export_onnx.OnnxModel, "__call__", wrong)
    with pytest.raises(UserError, match="apart from torch"):
        export_model.export_model(run, tmp_path / "out", "onnx", lambda card: public)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(run, tmp_path, monkeypatch, command):
    find = export_onnx.importlib.util.find_spec
    monkeypatch.setattr(
        export_onnx.importlib.util,
        "find_spec",
        lambda name: None if name == "onnxruntime" else find(name),
    )
    code, _, err = command("export", run, "--format", "onnx", "--out", tmp_path / "out")
    assert code == 2
    assert "needs onnxruntime; install with: pip install 'ktan[export]'" in err


def test_mistakes(run, tmp_path, command):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for options, message in [
        (("--out", tmp_path / "full"), "exists already"),
        (("--out", tmp_path / "new", "--exit", "1"), "without early exits"),
        (("--out", tmp_path / "new", "--calibration", "0"), "--calibration is 0"),
        (("--out", tmp_path / "new", "--dataset", "no-such"), "no data set is called"),
    ]:
        code, _, err = command("export", run, "--format", "int8", *options)
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err


def test_a_runs_own_data_is_found(run, public, tmp_path):
    _, card = read_student(run)
    for folder in (run, run / "student"):
        found = public_data_of(folder, card, DataSource(), SplitRecipe())
        assert torch.equal(found.unlabelled, public.unlabelled)
    # What is given goes before the record.
    other = public_data_of(run, card, DataSource(), SplitRecipe(seed=4))
    assert not torch.equal(other.unlabelled, public.unlabelled)


def test_another_runs_record_is_not_taken(run, public, tmp_path):
    _, card = read_student(run)
    write_config(tmp_path, {**SETTINGS, "split-seed": 7})
    given_away = tmp_path / "given-away"
    shutil.copytree(run / "student", given_away)
    found = public_data_of(given_away, card, DATA, replace(RECIPE, seed=0))
    expected = PublicData.load(DATA, replace(RECIPE, seed=0))
    assert torch.equal(found.unlabelled, expected.unlabelled)
    (tmp_path / "config.toml").unlink()
    write_config(tmp_path, SETTINGS, "compare")
    compared = tmp_path / "runs" / "local-none-0" / "student"
    shutil.copytree(run / "student", compared)
    for folder in (compared, compared.parent):
        found = public_data_of(folder, card, DataSource(), SplitRecipe())
        assert torch.equal(found.unlabelled, public.unlabelled)
