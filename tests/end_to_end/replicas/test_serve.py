"""`teacher-server serve` twice, trained teacher, mTLS and all: a student that changes replicas."""

import json
import shutil
from dataclasses import replace

import pytest

from benchmarks.faults.database import own_database
from tests.end_to_end.deployment import QUERIES, Deployment


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_student_whose_replica_is_killed_goes_on_with_the_other(tmp_path, postgresql) -> None:
    witness = tmp_path / "shared" / "head.json"
    with own_database(postgresql) as database:
        here = Deployment(tmp_path)
        here.prepare("--epsilon", "8", "--witness", str(witness), "--database-url", database.url)
        shutil.copytree(here.ledger, tmp_path / "there" / "ledger")
        shutil.copytree(here.teacher, tmp_path / "there" / "teacher")
        shutil.copytree(tmp_path / "certs", tmp_path / "there" / "certs")
        there = replace(here, folder=tmp_path / "there")
        chunks = here.student / "answers" / "chunks"
        with here.service() as (first, one), there.service() as (second, other):
            client = here.train_student(one, "--query-batch", "2")
            client.wait_for(lambda: len(list(chunks.glob("*"))) >= 8)
            assert first.kill() == -9
            client.kill()
            paid = len(list(chunks.glob("*")))
            answers = ("--answers", here.student / "answers")
            client = there.train_student(other, "--query-batch", "2", *answers)
            assert client.end() == 0, client.errors
            assert second.stop() == 0
        assert json.loads(client.output)["answers"]["samples"] == QUERIES
        assert len(list(chunks.glob("*"))) > paid
        report = here.run_json(
            "privacy-audit", "ledger", there.ledger, "--receipts", here.student / "answers",
            "--head", witness,
        )  # fmt: skip
        assert report["spent"] == QUERIES * (report["spent"] // QUERIES) > 0
        assert report["receipts"] > paid
