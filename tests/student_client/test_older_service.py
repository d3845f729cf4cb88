"""A service from before taps could be named answers, and charges, all of them."""

import pytest
import torch

from ktan.digests import sample_digests
from ktan.errors import UserError
from student_client.fetching import FetchingTeacher, Pool, fetch
from student_client.pin import open_store
from student_client.verification import Verifier
from tests.student_client.commands import PRICE, QUERIES


@pytest.fixture(autouse=True)
def older(stage):
    stage.service.taps_by_name = False


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (12, 1, 28, 28), generator=generator).to(torch.uint8)


def fetched(stage, folder, samples):
    with stage.teacher() as teacher:
        description = teacher.describe()
        store = open_store(folder, description)
        pool = Pool(samples)
        verifier = Verifier.of(description, store)
        return fetch(teacher, description, store, verifier, pool, pool.digests)


def test_a_student_that_wants_some_taps_is_refused_before_anything_is_asked(train, stage, tmp_path):
    code, _, err = train("--yes", "--method", "soft-logits")
    assert code == 2
    assert "answers, and charges, all its taps" in err
    assert "--all-taps" in err
    assert stage.service.calls == []
    assert not list((tmp_path / "run").glob("answers/requests/*"))
    code, _, err = train("--yes", "--method", "soft-logits", "--all-taps")
    assert (code, err) == (0, "")
    assert set(stage.service.asked) == {()}
    assert stage.service.spent == QUERIES * PRICE


def test_a_teacher_of_some_taps_is_refused(stage, folder, samples):
    with stage.teacher() as teacher:
        with pytest.raises(UserError, match="--all-taps"):
            FetchingTeacher.open(teacher, folder, asks=["hint"])
        whole = FetchingTeacher.open(teacher, folder)
        assert set(whole.answer(samples)) == {"probabilities", "hint"}
    assert stage.service.asked == [()]
    assert stage.service.spent == len(samples) * PRICE


def test_what_was_begun_for_some_taps_is_asked_whole_and_paid_once(stage, folder, samples):
    """A client that did not look charged all taps, and could not take them."""
    with stage.teacher() as teacher:
        store = open_store(folder, teacher.describe())
        store.begin("begun", sample_digests(samples[:5]), ["hint"])
        teacher.query("begun", samples[:5].numpy(), "samples", ["hint"])
    assert stage.service.spent == 5 * PRICE
    assert fetched(stage, folder, samples).samples == len(samples)
    assert stage.service.spent == len(samples) * PRICE
    assert not list(folder.glob("requests/*"))


def test_what_is_here_in_part_cannot_be_completed(stage, folder, samples):
    stage.service.taps_by_name = True
    with stage.teacher() as teacher:
        FetchingTeacher.open(teacher, folder, asks=["hint"]).answer(samples[:5])
    stage.service.taps_by_name = False
    before = stage.service.spent, len(stage.service.calls)
    with pytest.raises(UserError, match="--all-taps"):
        fetched(stage, folder, samples)
    assert (stage.service.spent, len(stage.service.calls)) == before
    assert not list(folder.glob("requests/*"))
