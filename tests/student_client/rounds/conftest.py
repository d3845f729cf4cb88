"""Runs in three rounds of four queries."""

import pytest

from ktan.trainer import TrainerOptions
from student_client.connection import Connection
from student_client.options import CourseOptions, QueryOptions, StudentOptions
from student_client.public_data import PublicData
from student_client.runs import Run
from tests.student_client.rounds.in_rounds import DATA, QUERIES, RECIPE, ROUNDS


@pytest.fixture(autouse=True)
def briefly(brisk, one_thread):
    """One thread, and no picture."""


@pytest.fixture(scope="module")
def public():
    return PublicData.load(DATA, RECIPE)


@pytest.fixture
def run(stage, tmp_path):
    """A run of `soft-logits` in three rounds of four queries, unless told otherwise."""

    def make(out="run", *, method="soft-logits", select="margin", rounds=ROUNDS, **trainer):
        trainer = {"steps": 15, "labelled_batch": 6, "answered_batch": 4, "device": "cpu",
                   "precision": "float32", "checkpoint_every": 4, **trainer}  # fmt: skip
        shares = ("hint_epochs=3", "warm_up_epochs=1", "adversarial_weight=0.1")
        settings = shares if method == "rona" else ()
        return Run(
            stage.address, tmp_path / out, DATA, RECIPE,
            StudentOptions(method=method, method_set=settings),
            QueryOptions(
                queries=QUERIES, select=select, select_steps=2, query_batch=2, in_flight=1
            ),
            TrainerOptions(**trainer), Connection(plaintext=True, patience=1),
            CourseOptions(rounds=rounds),
        )  # fmt: skip

    return make
