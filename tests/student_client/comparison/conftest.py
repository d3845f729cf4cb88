"""Outcomes that a test can write down, and the command with tiny students."""

import pytest

from ktan.networks import measure
from ktan.networks.measure import Size, SpeedUp
from privacy.promise import Adjacency, Promise
from student_client.comparison import files
from student_client.comparison.outcomes import Cell, Outcome
from student_client.comparison.table import Facts, TeacherFacts
from student_client.provenance import Provenance, alone, unprotected
from tests.student_client.comparison.tables import QUERIES, USUAL

PROMISE = Promise(4.0, 1e-5, Adjacency.REPLACE_ONE, "record", "ensemble")


@pytest.fixture
def outcome():
    """Builds an outcome of one method, teacher, seed and accuracy."""

    def build(method, teacher, seed, accuracy, epsilon=2.0):
        privacy = {
            "none": alone(),
            "local": unprotected("file:teacher", "v", "single", 100),
            "remote": Provenance(
                "private", "host:1", "v", "ensemble", 100, PROMISE, epsilon, 5, "a" * 32, (1, 2), 2
            ),
        }[teacher]
        return Outcome(Cell(method, teacher, seed), accuracy, 78_042, 40, privacy)

    return build


@pytest.fixture
def facts():
    """A pair of networks with round figures."""
    return Facts(
        dataset="cifar10",
        test_samples=1000,
        network="resnet8",
        student=Size(78_042, 12_500_000),
        seeds=(0, 1, 2),
        teacher=TeacherFacts(
            "resnet32", Size(468_252, 50_000_000), 0.925, SpeedUp(1000.0, 3900.0, 3.9, 100, 7),
            "cpu, bf16",
        ),
    )  # fmt: skip


@pytest.fixture
def brisk(brisk, monkeypatch):
    """Pictures and timings as small as they can be: other tests look at them."""
    monkeypatch.setattr(files, "draw", lambda rows, facts, path: path.touch())
    monkeypatch.setattr(measure, "_SHORTEST", 1e-4)


@pytest.fixture
def compare(command, tmp_path):
    """`student-client compare` of a tiny student."""

    def run(methods, *options, out="table"):
        usual = {**USUAL, "--seeds": "0,1", "--out": tmp_path / out}
        fixed = [part for pair in usual.items() if pair[0] not in options for part in pair]
        return command("compare", "--methods", methods, *fixed, *options)

    return run


@pytest.fixture
def teacher(command, tmp_path):
    """The folder of a larger student that was trained alone."""
    folder = tmp_path / "teacher"
    usual = {**USUAL, "--network-set": "width=32", "--out": folder}
    assert command("train", "none", *(part for pair in usual.items() for part in pair))[0] == 0
    return folder


@pytest.fixture
def remote(stage):
    """Options that name the service on `stage`."""
    return (
        "--remote",
        stage.address,
        "--plaintext",
        "--patience",
        2,
        "--queries",
        QUERIES,
        "--yes",
    )
