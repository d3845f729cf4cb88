"""torchrun starts several processes of one run: one of them asks, all of them train."""

import os
import subprocess
import sys
from pathlib import Path

import safetensors.numpy

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
