"""The train command as its user meets it: what it says, spends and writes."""

import json

import numpy as np
import pytest
import torch

from ktan.curves import plot_curves
from ktan.data import Normalisation
from ktan.networks import NetworkSpec, build
from ktan.taps import Tap
from ktan.teachers import CardTap, TeacherCard, write_folder
from protos import teacher_pb2
from student_client import results
from tests.student_client.commands import PRICE, QUERIES, Terminal, result
from tests.student_client.service import CLASSES


def test_a_taught_student_says_what_it_cost_and_under_which_promise(
    train, stage, tmp_path, monkeypatch
):
    monkeypatch.setattr(results, "plot_curves", plot_curves)
    code, out, err = train("--yes")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "24 new answers × at most 1,000 = 24,000 charge units" in out
    assert "ε = 0 → " in out
    assert "of 4 at δ = 1e-5, replace-one" in out
    assert "9,976 more answers" in out
    assert "% of 50 test samples, after the last step" in out
    run = tmp_path / "run"
    found = result(run)
    assert found["kind"] == "private"
    assert found["answers"]["samples"] == found["answers"]["charged"] == QUERIES
    assert found["answers"]["charge"] == stage.service.spent == QUERIES * PRICE
    assert found["promise"]["adjacency"] == "replace-one"
    assert found["epsilon_spent"] == pytest.approx(4 * 24_000 / 10_000_000)
    # Every one of the four losses, and the game's figures, have a curve.
    assert {"local", "kd", "hint", "adversarial", "discriminator"} <= found["last"].keys()
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").glob("events.*"))
    card = json.loads((run / "student/card.json").read_text())
    assert card["privacy"]["promise"] == found["promise"]
    assert card["privacy"]["receipts"] == {"count": 3, "first_entry": 1, "last_entry": 3}
    assert "replace-one" in card["privacy"]["sentence"]
    assert card["test_accuracy"] == found["accuracy"]


def test_json_alone_stands_on_standard_output(train):
    code, out, err = train("--yes", "--json")
    assert code == 0
    assert json.loads(out)["answers"]["samples"] == QUERIES
    assert "24 new answers" in err


def test_nothing_is_spent_without_a_yes(train, stage):
    code, _, err = train()
    assert code == 2
    assert err == (
        "error: this would spend privacy budget, and there is no terminal to ask you; "
        "agree beforehand with --yes\n"
    )
    code, _, err = train(stdin=Terminal("\n"))
    assert code == 1
    assert "Spend it? [y/N]" in err
    assert "nothing was asked and nothing was spent" in err
    assert stage.service.spent == 0
    assert stage.service.calls == []
    # A run that has not begun is in nobody's way.
    assert train(stdin=Terminal("y\n"))[0] == 0
    assert stage.service.spent == QUERIES * PRICE


def test_free_answers_are_not_asked_about(train, stage, tmp_path):
    stage.service.charges, stage.service.mode, stage.service.budget = (0, 0), "dp-sgd", 0
    code, out, err = train()
    assert (code, err) == (0, "")
    assert "whose privacy the teacher's training paid for" in " ".join(out.split())
    found = result(tmp_path / "run")
    assert found["answers"]["charged"] == 0
    assert found["promise"]["mode"] == "dp-sgd"


def test_the_three_runs_ask_about_the_same_samples(train, tmp_path):
    train("--yes", "--select", "kcentre", "--select-steps", "3", out="one")
    train("--yes", "--select", "kcentre", "--select-steps", "3", "--method", "fitnet", out="two")
    one, two = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")
    )
    assert one["answers"]["selection_sha256"] == two["answers"]["selection_sha256"]
    # The second run's answers had been given before: sent again they cost nothing.
    assert two["answers"]["charged"] == 0
    train("--yes", "--seed", "1", out="three")
    three = result(tmp_path / "three")
    assert three["answers"]["selection_sha256"] != one["answers"]["selection_sha256"]


@pytest.fixture
def teacher_folder(tmp_path):
    """Three untrained teachers whose opinions differ."""
    spec = NetworkSpec("cnn-small", (1, 28, 28), 10)
    networks = []
    for seed in range(3):
        torch.manual_seed(seed)
        networks.append(build(spec).state_dict())
    taps = (
        CardTap(Tap("probabilities", "probabilities", temperature=1.0, shape=(10,)), 1.0, "sum"),
        CardTap(Tap("hint", "hint", path="features", shape=(64,)), 1.0, "public"),
    )
    card = TeacherCard(
        mode="ensemble", teachers=3, dataset="fake", dataset_id="fake", classes=CLASSES,
        input_shape=(1, 28, 28), input_dtype="uint8", network=spec, taps=taps, ledger_id="a" * 32,
        normalisation=Normalisation((127.5,), (73.6,)), split={}, unit="record",
    )  # fmt: skip
    stacked = {name: torch.stack([state[name] for state in networks]) for name in networks[0]}
    write_folder(tmp_path / "teacher", card, stacked, {})
    return tmp_path / "teacher"


def test_a_teachers_folder_teaches_unprotected_on_the_same_samples(
    train, stage, teacher_folder, tmp_path
):
    code, out, err = train(teacher=f"file:{teacher_folder}", out="open")
    assert (code, err) == (0, "")
    assert "UNPROTECTED" in out
    assert "for comparison" in out
    assert stage.service.calls == []
    found = result(tmp_path / "open")
    assert (found["kind"], found["promise"], found["epsilon_spent"]) == ("unprotected", None, None)
    assert found["label"] == "unprotected, for comparison"
    assert {"local", "kd", "hint", "adversarial"} <= found["last"].keys()
    train("--yes", out="private")
    asked = result(tmp_path / "private")["answers"]["selection_sha256"]
    assert found["answers"]["selection_sha256"] == asked
    card = json.loads((tmp_path / "open/student/card.json").read_text())
    assert "Do not give it to anybody" in card["privacy"]["sentence"]


def test_without_a_teacher_the_local_loss_trains_alone(train, stage, tmp_path):
    code, out, _ = train(teacher="none")
    assert code == 0
    assert "no teacher was asked" in out
    found = result(tmp_path / "run")
    assert (found["kind"], found["method"], found["answers"]) == ("none", "local", None)
    assert found["promise"] is None
    assert stage.service.calls == []


def test_a_students_host_needs_no_private_part(train, tmp_path):
    code, _, err = train("--private", "0", teacher="none")
    assert (code, err) == (0, "")
    assert result(tmp_path / "run")["split"]["counts"]["private"] == 0


def test_tables_travel_as_floats(train, stage, tmp_path):
    numbers = np.random.default_rng(0)
    labels = numbers.integers(3, size=200)
    samples = (labels[:, None] + numbers.normal(size=(200, 6))).astype(np.float32)
    np.savez(tmp_path / "patients.npz", samples=samples, labels=labels, classes=["0", "1", "2"])
    stage.service.shape, stage.service.classes = (6,), ("0", "1", "2")
    stage.service.dtype = teacher_pb2.DATA_TYPE_FLOAT32
    stage.service.answer = lambda sample: {
        "probabilities": np.eye(10, dtype=np.float32)[:1, :3],
        "hint": np.zeros((1, 8), np.float32),
    }
    code, _, err = train("--yes", "--dataset", f"arrays:{tmp_path / 'patients.npz'}")
    assert (code, err) == (0, "")
    found = result(tmp_path / "run")
    assert found["network"]["name"] == "mlp-small"
    # This teacher calls everything class 0.
    asked = json.loads((tmp_path / "run/selection.json").read_text())["positions"]
    share = float((labels[asked] == 0).mean())
    assert found["answers"]["label_accuracy"] == pytest.approx(share)
