"""The train command as its user meets it: what it says, spends, writes and goes on from."""

import io
import json
import os
import signal
import sys
import time
import tomllib

import grpc
import numpy as np
import pytest
import safetensors.numpy
import torch

from ktan import pupil
from ktan.data import Normalisation
from ktan.networks import NetworkSpec, build
from ktan.taps import Tap
from ktan.teachers import CardTap, TeacherCard, write_folder
from protos import teacher_pb2
from student_client import cli

QUERIES = 24
PRICE = 1000
SPLIT = {"--size": 200, "--private": 60, "--labelled": 30, "--unlabelled": 60, "--test": 50}
DATA = ["--dataset", "fake", *(part for pair in SPLIT.items() for part in pair)]
TAPS = {"probabilities", "hint"}
CLASSES = tuple(f"pattern-{number}" for number in range(10))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs `student-client` in this process; gives exit code, standard output, standard error."""

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["student-client", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", stdin or io.StringIO())
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def train(command, stage, tmp_path):
    """`student-client train` of a tiny student at the service on `stage`."""

    def run(*options, out="run", teacher=None, stdin=None):
        usual = {"--queries": QUERIES, "--steps": 6, "--query-batch": 10, "--out": tmp_path / out}
        usual |= {"--dataset": "fake", **SPLIT}
        wire = [] if teacher else ["--plaintext", "--patience", "2"]
        fixed = [part for pair in usual.items() if pair[0] not in options for part in pair]
        return command("train", teacher or stage.address, *wire, *fixed, *options, stdin=stdin)

    return run


def result(run):
    return json.loads((run / "result.json").read_text())


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self):
        return True


def test_a_taught_student_says_what_it_cost_and_under_which_promise(train, stage, tmp_path):
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


def test_the_three_runs_ask_about_the_same_samples(train, tmp_path):
    pytest.importorskip("ktan.teachers")
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


def test_ones_own_folder_needs_its_public_numbers(command, tmp_path):
    samples = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    np.savez(tmp_path / "public.npz", samples=samples)
    data = ["--dataset", f"arrays:{tmp_path / 'public.npz'}", "--unlabelled", 10]
    code, _, err = command("train", "none", "--out", tmp_path / "run", *data, "--labelled", 5)
    assert code == 2
    assert "say how many units are public: --labelled, --unlabelled and --test" in err
    assert "arrays:public lacks --test" in err


def test_a_budget_that_does_not_suffice_is_said_before_anything_is_asked(train, stage):
    stage.service.budget = 10 * PRICE
    code, _, err = train("--yes")
    assert code == 2
    assert "24 new answers: they cost 24,000, 10,000 is left, enough for 10" in err
    assert stage.service.calls == []


def test_what_does_not_fit_is_said_before_anything_is_paid(train, stage):
    for options, message in [
        (["--hint", "hint=nowhere"], "no module 'nowhere'"),
        (["--hint", "sound=features"], "the teacher answers no hint 'sound'"),
        (["--method", "magic"], "no method is called 'magic'"),
        (["--method-set", "hint_wait=1"], "ktan has no option 'hint_wait'; it has local_weight"),
        (["--method-set", "hint_weight=much"], "give a value like"),
        (["--network", "resnet9"], "the depth is 6 n + 2"),
        (["--network-set", "wings=2"], "wings"),
        (["--queries", "1000"], "1000 queries asked for, 60 unlabelled public samples"),
        (["--size", "100"], "the split asks for 200 units"),
    ]:
        code, _, err = train("--yes", *options)
        assert code == 2, options
        assert message in err
        assert len(err.splitlines()) == 1
    assert stage.service.calls == []


def test_a_teacher_without_hints_is_met_with_the_method_that_needs_none(train, stage):
    stage.service.hints = False
    code, _, err = train("--yes")
    assert code == 2
    assert err == (
        "error: method ktan needs a hint (--taps hint=PATH); the teacher answers probabilities "
        "(probabilities): choose a method that these serve, or ask its custodian for more\n"
    )
    assert stage.service.calls == []


def test_a_teacher_of_other_data_is_refused(train, stage):
    stage.service.shape = (3, 32, 32)
    code, _, err = train("--yes")
    assert code == 2
    assert "takes samples of uint8 [3, 32, 32], and fake has uint8 [1, 28, 28]" in err
    stage.service.shape = (1, 28, 28)
    stage.service.classes = (*CLASSES[:9], "smudge")
    code, _, err = train("--yes")
    assert code == 2
    assert "class 9 is 'smudge' to the teacher at" in err
    assert "'pattern-9' in fake" in err


def test_a_service_that_stays_away_is_a_passing_fault(train, stage, tmp_path):
    stage.stop()
    code, out, err = train("--yes")
    assert code == 1
    assert "error: no teacher service answers at 127.0.0.1" in err
    assert "asking again" in out
    stage.start()
    assert train("--yes")[0] == 0


def test_ctrl_c_while_asking_loses_nothing(train, stage, tmp_path):
    def interrupt(context, response):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)

    stage.service.after = [lambda *_: None, interrupt]
    code, out, err = train("--yes")
    assert code == 130
    assert "10 of 24 answers are stored in" in out
    assert "--resume" in out
    assert stage.service.spent == 20 * PRICE
    code, _, err = train("--yes")
    assert code == 2
    assert "already holds a run; go on with it by --resume" in err
    code, out, _ = train("--yes", "--resume")
    assert code == 0
    assert stage.service.spent == QUERIES * PRICE
    ids = [request_id for request_id, _ in stage.service.calls]
    assert ids[1] == ids[2]


def test_ctrl_c_while_training_leaves_a_state_that_goes_on_exactly(
    train, stage, tmp_path, monkeypatch
):
    run, save = tmp_path / "run", pupil.save_checkpoint

    def interrupted(*arguments):
        save(*arguments)
        os.kill(os.getpid(), signal.SIGINT)

    options = ["--yes", "--steps", "60", "--checkpoint-every", "5"]
    with monkeypatch.context() as patch:
        patch.setattr(pupil, "save_checkpoint", interrupted)
        code, out, _ = train(*options)
    assert code == 130
    assert f"student-client train --config {run / 'config.toml'} --resume" in out
    assert not (run / "result.json").exists()
    # The service is not needed any more: all answers are here.
    stage.stop()
    assert train(*options, "--resume")[0] == 0
    stage.start()
    assert train(*options, out="whole")[0] == 0
    pair = [
        safetensors.numpy.load_file(tmp_path / name / "student/weights.safetensors")
        for name in ("run", "whole")
    ]
    for name, values in pair[0].items():
        assert (values == pair[1][name]).all(), name


def test_the_recorded_options_repeat_the_run(train, command, stage, tmp_path):
    assert train("--yes", "--method-set", "hint_weight=0.5", "--seed", "3")[0] == 0
    config = tmp_path / "run/config.toml"
    recorded = tomllib.loads(config.read_text())["train"]
    assert recorded["seed"] == 3
    assert recorded["split-seed"] == 0
    assert recorded["method-set"] == ["hint_weight=0.5"]
    code, _, err = command("train", "--config", config, "--out", tmp_path / "again", "--yes")
    assert (code, err) == (0, "")
    first, second = (result(tmp_path / name) for name in ("run", "again"))
    assert first["last"] == second["last"]


def test_a_run_is_resumed_under_its_own_options_only(train, stage):
    stage.service.after = [lambda context, _: context.abort(grpc.StatusCode.UNKNOWN, "broken")]
    assert train("--yes")[0] == 2
    code, _, err = train("--yes", "--resume", "--learning-rate", "0.5")
    assert code == 2
    assert "was begun with --learning-rate 0.001, now it is 0.5" in err
    assert train("--yes", "--resume", "--deadline", "30")[0] == 0


def test_there_must_be_something_to_resume(train):
    code, _, err = train("--yes", "--resume")
    assert code == 2
    assert "holds no run to resume" in err


def test_a_finished_run_is_not_done_again(train, stage):
    train("--yes")
    calls = len(stage.service.calls)
    code, out, _ = train("--yes", "--resume")
    assert code == 0
    assert "% of 50 test samples" in out
    assert len(stage.service.calls) == calls


def test_free_answers_are_not_asked_about(train, stage, tmp_path):
    stage.service.charges, stage.service.mode, stage.service.budget = (0, 0), "dp-sgd", 0
    code, out, err = train()
    assert (code, err) == (0, "")
    assert "whose privacy the teacher's training paid for" in " ".join(out.split())
    found = result(tmp_path / "run")
    assert found["answers"]["charged"] == 0
    assert found["promise"]["mode"] == "dp-sgd"


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


def test_describe_and_budget_show_teacher_price_and_promise(command, stage):
    stage.service.spent = 2_500_000
    code, out, err = command("describe", stage.address, "--plaintext")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    for part in ("ensemble, 200 teachers", "probabilities", "0.125", "1,000", "7,500 new answers",
                 "ε = 1 of 4", "replace-one"):  # fmt: skip
        assert part in out
    code, out, _ = command("describe", stage.address, "--plaintext", "--json")
    described = json.loads(out)
    assert {tap["name"] for tap in described["taps"]} == TAPS
    assert described["charge_per_sample"] == PRICE
    code, out, _ = command("budget", stage.address, "--plaintext", "--json")
    assert json.loads(out)["left"] == 7_500_000


def test_mistakes_at_the_command_line_are_one_line(command, stage, tmp_path):
    for arguments in (
        ["describe"],
        ["describe", "nowhere"],
        ["describe", stage.address],
        ["describe", stage.address, "--plaintext", "--colour", "red"],
        ["train", stage.address, "--plaintext", "--steps", "many", "--out", tmp_path],
        ["evaluate", "nowhere"],
        ["train", "file:nowhere", "--out", tmp_path, *DATA],
        ["--config", "no.toml", "describe", stage.address],
        ["describe", stage.address, "--certs", tmp_path / "none"],
    ):
        code, _, err = command(*arguments)
        assert code == 2, arguments
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1, err
        assert "Errno" not in err
