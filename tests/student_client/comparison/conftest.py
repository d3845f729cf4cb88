"""Outcomes that a test can write down."""

import pytest

from ktan.networks.measure import Size, SpeedUp
from privacy.promise import Adjacency, Promise
from student_client.comparison.outcomes import Cell, Outcome
from student_client.comparison.table import Facts, TeacherFacts
from student_client.provenance import Provenance, alone, unprotected

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
