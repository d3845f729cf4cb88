"""What an earlier run began and nobody can pay is in nobody's way."""

import grpc
import pytest
import torch

from student_client.errors import BudgetRefused, TeacherError
from student_client.fetching import Pool, fetch
from student_client.pin import open_store
from student_client.progress import Silent
from student_client.verification import Verifier
from tests.student_client.commands import PRICE, QUERIES
from tests.student_client.service import status


class Told(Silent):
    def __init__(self):
        self.forgotten = []

    def forget(self, reason):
        self.forgotten.append(reason)


@pytest.fixture
def asking(stage, folder):
    """One run of a client that wants some of 40 samples."""
    generator = torch.Generator().manual_seed(1)
    samples = torch.randint(0, 256, (40, 1, 28, 28), generator=generator).to(torch.uint8)

    def run(rows, **options):
        with stage.teacher() as teacher:
            description = teacher.describe()
            store = open_store(folder, description)
            pool = Pool(samples)
            verifier = Verifier.of(description, store)
            wanted = pool.digests[rows]
            fetched = fetch(teacher, description, store, verifier, pool, wanted, **options)
            assert not store.missing(wanted).any()
            return fetched

    return run


def broken(context):
    context.abort(grpc.StatusCode.UNKNOWN, "the wire broke")


def test_a_refused_request_of_an_earlier_run_is_forgotten(asking, stage, folder):
    stage.service.before = [broken]
    with pytest.raises(TeacherError):
        asking(range(20))
    assert stage.service.spent == 0
    stage.service.budget = 5 * PRICE
    told = Told()
    assert asking(range(20, 25), progress=told).samples == 5
    assert stage.service.spent == 5 * PRICE
    (reason,) = told.forgotten
    assert "began to ask about 20 samples" in reason
    assert "asked 20,000, left 5,000" in reason
    assert not list(folder.glob("requests/*"))


def test_what_of_it_is_wanted_now_is_asked_under_another_id(asking, stage):
    stage.service.before = [broken]
    with pytest.raises(TeacherError):
        asking(range(20))
    stage.service.budget = 5 * PRICE
    assert asking(range(15, 20)).charged == 5
    first, again, other = stage.service.calls
    assert first == again
    assert other[0] != first[0]


def test_what_is_wanted_now_and_refused_still_ends_the_run(asking, stage, folder):
    stage.service.before = [broken]
    with pytest.raises(TeacherError):
        asking(range(20))
    stage.service.budget = 5 * PRICE
    with pytest.raises(BudgetRefused, match="asked 6,000, left 5,000"):
        asking(range(20, 26))
    assert stage.service.spent == 0
    assert not list(folder.glob("requests/*"))


def test_the_screen_says_what_was_forgotten(train, stage, tmp_path):
    kept = ("--answers", tmp_path / "answers", "--yes")
    stage.service.before = [broken]
    assert train(*kept, out="first")[0] != 0
    refused = status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TAP", "no such tap")
    stage.service.before = [lambda context: context.abort_with_status(refused)]
    code, out, _ = train(*kept, "--select", "random", out="second")
    assert code == 0
    assert "began to ask about 10 samples; this was refused" in " ".join(out.split())
    assert stage.service.spent == QUERIES * PRICE
