"""A student with early exits, from training to a folder that somebody else loads."""

import json

import pytest
import torch

from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.evaluation import accuracy
from ktan.networks import count_parameters
from ktan.tap_reader import read_taps
from ktan.trainer import TrainerOptions
from student_client import cli, results
from student_client.connection import Connection
from student_client.export import evaluate_student, export_student
from student_client.options import CourseOptions, QueryOptions, StudentOptions
from student_client.public_data import PublicData
from student_client.runs import Run, train_student
from student_client.screen import Screen
from student_client.student_card import StudentCard, read_exits, read_student

RECIPE = SplitRecipe(private=60, labelled=30, unlabelled=60, test=50)
DATA = DataSource(dataset="fake", size=200)


@pytest.fixture(autouse=True, scope="module")
def briefly():
    """One thread, and no picture: drawing takes longer than these trainings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "plot_curves", lambda *_: None)
        yield
    torch.set_num_threads(threads)


def trained(out, teacher="none", method="byot", network=None, **course) -> dict:
    run = Run(
        teacher, out, DATA, RECIPE, StudentOptions(method=method, network=network),
        QueryOptions(queries=12),
        TrainerOptions(
            steps=8, labelled_batch=10, answered_batch=6, device="cpu", precision="float32"
        ),
        Connection(plaintext=True, patience=1), CourseOptions(**course),
    )  # fmt: skip
    return train_student(run, Screen(quiet=True), resume=False, agreed=True)


@pytest.fixture(scope="module")
def finished(briefly, tmp_path_factory):
    """A run of the resnet with two exits, its result, and the public data."""
    out = tmp_path_factory.mktemp("byot") / "run"
    found = trained(out, network="resnet8")
    return out, found, PublicData.load(DATA, RECIPE)


def test_every_exits_accuracy_is_reported(finished):
    out, result, public = finished
    exits = result["exits"]
    assert [(one["exit"], one["path"]) for one in exits] == [
        (1, "features.layer1"),
        (2, "features.layer2"),
        (3, None),
    ]
    assert exits[2]["accuracy"] == result["accuracy"]
    costs = [one["multiply_adds"] for one in exits]
    assert costs == sorted(costs)
    card = json.loads((out / "student/card.json").read_text())
    assert card["exits_test_accuracy"] == [one["accuracy"] for one in exits[:2]]
    # By hand, from what the folder holds.
    student, _ = read_student(out)
    for head, one in zip(read_exits(out), exits[:2], strict=True):
        with torch.no_grad(), read_taps(student, [head.spec.path]) as read:
            maps = read(public.normalisation(public.test))[1][head.spec.path]
            hits = head(maps)[0].argmax(dim=1) == public.test_labels
        assert one["accuracy"] == pytest.approx(hits.float().mean().item(), abs=0.021)


def test_an_exported_exit_is_a_student_like_any_other(finished, tmp_path):
    out, result, public = finished
    whole, card = read_student(out)
    samples = public.normalisation(public.test[:5])
    for number, head in enumerate(read_exits(out), start=1):
        folder = tmp_path / str(number)
        exported = export_student(out, folder, number)
        assert sorted(path.name for path in folder.iterdir()) == [
            "card.json",
            "weights.safetensors",
        ]
        assert exported.test_accuracy == result["exits"][number - 1]["accuracy"]
        student, read = read_student(folder)
        assert read == exported
        assert (read.privacy, read.method) == (card.privacy, "byot")
        assert count_parameters(student) < count_parameters(whole)
        # The same logits as where it was taught, at the tap of the whole student.
        with torch.no_grad(), read_taps(whole, [head.spec.path]) as taps:
            expected = head(taps(samples)[1][head.spec.path])[0]
            assert torch.equal(student(samples), expected)
        measured = evaluate_student(folder, DATA, RECIPE, "test", "cpu")
        by_hand = accuracy(student, public.test, public.test_labels, normalise=read.normalisation)
        assert measured["accuracy"] == by_hand
        # It has no exits of its own, and can be given on as it is.
        assert read_exits(folder) == []
        assert export_student(folder, tmp_path / f"on-{number}") == exported


def test_an_export_of_the_whole_student_keeps_its_exits(finished, tmp_path):
    out, _, _ = finished
    for number in (None, 3):
        folder = tmp_path / str(number)
        export_student(out, folder, number)
        assert len(read_exits(folder)) == 2
        mine, its = read_student(out)[0].state_dict(), read_student(folder)[0].state_dict()
        assert all(torch.equal(mine[name], its[name]) for name in mine)
    damaged = tmp_path / "None" / "exits.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x55")
    with pytest.raises(UserError, match="is not the file that"):
        read_exits(tmp_path / "None")


@pytest.mark.parametrize("number", [0, 4])
def test_an_exit_that_there_is_not_is_refused(finished, tmp_path, number):
    out, _, _ = finished
    with pytest.raises(UserError, match="has exits 1 to 3"):
        export_student(out, tmp_path / "given", number)
    assert not (tmp_path / "given").exists()


def test_a_card_from_before_there_were_exits_is_read(finished):
    out, _, _ = finished
    content = json.loads((out / "student/card.json").read_text())
    new = ("exits", "exits_test_accuracy", "exits_sha256", "cut_at", "validation_samples")
    old = {name: value for name, value in content.items() if name not in new}
    card = StudentCard.from_json(old)
    assert (card.exits, card.cut_at, card.validation_samples) == ((), None, 0)


def test_the_command_says_all_exits_and_exports_one(finished, tmp_path, monkeypatch, capfd):
    out, result, _ = finished

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["student-client", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        return " ".join(capfd.readouterr().out.split())

    shape = ["--private", 60, "--labelled", 30, "--unlabelled", 60, "--test", 50]
    said = command(
        "train", "none", "--method", "byot", "--dataset", "fake", "--size", 200, *shape,
        "--network", "resnet8", "--steps", 8, "--labelled-batch", 10, "--answered-batch", 6,
        "--queries", 12, "--device", "cpu", "--precision", "float32", "--out", tmp_path / "run",
    )  # fmt: skip
    figures = [f"{one['exit']}: {100 * one['accuracy']:.2f} %" for one in result["exits"]]
    assert f"Exits {', '.join(figures)}" in said
    command("export", out, "--exit", 1, "--out", tmp_path / "given")
    assert read_student(tmp_path / "given")[1].cut_at.path == "features.layer1"
    # The exporter refuses a model whose logits are not those of the exit.
    command("export", tmp_path / "run", "--exit", 1, "--format", "torch-export", "--out",
            tmp_path / "program")  # fmt: skip
    assert (tmp_path / "program/student.pt2").stat().st_size > 0


def test_beside_a_teacher_exits_learn_from_what_its_answers_taught(stage, tmp_path):
    result = trained(tmp_path / "run", stage.address, "ktan+byot")
    assert {"local", "kd", "hint", "adversarial", "exits", "exits_kd", "exits_feature"} <= set(
        result["last"]
    )
    assert len(result["exits"]) == 2
    assert result["answers"]["charged"] == 12
    # The self losses ask for nothing: the price is KTAN's alone.
    assert stage.service.spent == 12 * sum(stage.service.charges)
    number = len(stage.service.calls)
    alone = trained(tmp_path / "alone", stage.address, "byot")
    assert (alone["kind"], len(stage.service.calls)) == ("none", number)


def test_a_run_without_exits_says_nothing_of_them(tmp_path):
    result = trained(tmp_path / "run", method="local")
    assert result["exits"] is None
    assert not (tmp_path / "run/student/exits.safetensors").exists()
    with pytest.raises(UserError, match="taught without early exits"):
        export_student(tmp_path / "run", tmp_path / "given", 1)


def test_methods_without_a_teacher_see_the_unlabelled_samples(tmp_path):
    result = trained(tmp_path / "run", method="fixmatch")
    assert {"local", "consistency"} <= set(result["last"])
    assert result["kind"] == "none"


def test_unlabelled_samples_are_seen_beside_a_teacher_too(stage, tmp_path):
    result = trained(tmp_path / "run", stage.address, "soft-logits+fixmatch")
    assert {"local", "kd", "consistency"} <= set(result["last"])
    assert result["answers"]["charged"] == 12
