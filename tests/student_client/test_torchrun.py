"""torchrun starts several processes of one run: one of them asks, all of them train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import safetensors.numpy

from ktan.data import DataSource, SplitRecipe
from ktan.methods.soft_logits import SoftLogits
from student_client.connection import Connection
from student_client.public_data import PublicData
from student_client.queries import read_selection
from student_client.screen import Screen
from student_client.sources import ServiceSource
from student_client.tap_choice import used_by
from tests.student_client.commands import DATA, QUERIES, result

OPTIONS = [
    *("--method", "soft-logits", "--rounds", 2),
    *("--queries", QUERIES, "--query-batch", 10, "--steps", 8, "--labelled-batch", 6),
    *("--answered-batch", 4, "--optimiser", "sgd", "--learning-rate", 0.01),
    *("--precision", "float32", "--device", "cpu", "--yes", *DATA),
]


def under_torchrun(count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"),
            *("--nproc-per-node", str(count)),
            *(Path(sys.executable).parent / "student-client", *map(str, arguments)),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def weights(run: Path):
    return safetensors.numpy.load_file(run / "student/weights.safetensors")


def test_one_process_asks_and_all_of_them_train(command, stage, tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    price = QUERIES * stage.service.charges[0]
    wire = ["--plaintext", "--patience", 2]
    ended = under_torchrun(2, "train", stage.address, "--out", two, *wire, *OPTIONS)
    assert ended.returncode == 0, ended.stderr
    # Asked once, paid once, said once.
    assert stage.service.spent == price
    assert ended.stdout.count("Accuracy") == ended.stdout.count("Promise") == 1
    # One process makes the same student of the same answers, which nobody pays for again.
    code, _, err = command(
        "train", stage.address, "--out", one, "--answers", two / "answers", *wire, *OPTIONS
    )
    assert code == 0, err
    assert stage.service.spent == price
    alone, shared = weights(one), weights(two)
    assert alone.keys() == shared.keys()
    assert max(abs(alone[name] - shared[name]).max() for name in alone) < 1e-4
    for fact in ("rounds", "selection_sha256", "label_accuracy"):
        assert result(two)["answers"][fact] == result(one)["answers"][fact]


def test_the_others_read_what_was_stored_and_change_nothing(train, stage, tmp_path):
    code, _, err = train("--yes", "--method", "soft-logits")
    assert code == 0, err
    stage.stop()
    folder = tmp_path / "run" / "answers"
    (chunk,) = list((folder / "chunks").iterdir())[:1]
    # As a crash leaves it: who opens the store for writing ends it.
    begun = {"samples": [], "taps": []}
    (folder / "requests" / f"{chunk.stem}.json").write_text(json.dumps(begun))
    public = PublicData.load(
        DataSource(dataset="fake", size=200),
        SplitRecipe(private=60, labelled=30, unlabelled=60, test=50),
    )
    chosen = read_selection(tmp_path / "run", public)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    source = ServiceSource(
        stage.address, Connection(plaintext=True), folder, 10, Screen(quiet=True), agreed=False,
        taps=used_by(SoftLogits()), asked_elsewhere=True,
    )  # fmt: skip
    assert list(source.prepare(public, None)) == ["probabilities"]
    source.agree(public, chosen, 5)
    answers = source.answers(public, chosen)
    assert len(answers.values["probabilities"]) == QUERIES
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
