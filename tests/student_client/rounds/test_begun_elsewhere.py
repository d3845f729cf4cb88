"""What another run began in a shared folder is paid between rounds only after a yes of its own."""

import io
import sys

import pytest

from ktan.answers import AnswerStore
from ktan.digests import sample_digests
from student_client.errors import UserError
from student_client.runs import train_student
from student_client.screen import Declined, Screen
from tests.student_client.commands import Terminal
from tests.student_client.rounds.in_rounds import QUERIES

BEGUN = 20
PRICE = 900


@pytest.fixture
def shared(run, stage, public):
    """A run of three rounds beside which, in its first, another one begins to ask and is cut
    off."""
    one = run()

    def begin(context, response):
        store = AnswerStore.open(one.out / "answers")
        store.begin("other", sample_digests(public.unlabelled[:BEGUN]), ["probabilities"])

    stage.service.after = [begin]
    return one


def train(one, monkeypatch, typed="", **options):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    return train_student(one, Screen(), resume=False, **{"agreed": False, **options})


def test_a_no_between_rounds_keeps_what_was_agreed(shared, stage, monkeypatch, capfd):
    with pytest.raises(Declined, match="nothing more was asked"):
        train(shared, monkeypatch, "y\nn\n")
    assert stage.service.spent == 4 * PRICE
    said = capfd.readouterr()
    assert said.err.count("Spend it?") == 2
    text = " ".join(said.out.split())
    assert "12 new answers × at most 900" in text
    assert "more than was agreed" in text
    # As on resuming: everything is quoted anew.
    result = train_student(shared, Screen(quiet=True), resume=True, agreed=True)
    assert result["answers"]["samples"] == QUERIES


def test_a_yes_holds_for_all_rounds_that_follow(shared, stage, monkeypatch, capfd):
    train(shared, monkeypatch, "y\ny\n")
    assert capfd.readouterr().err.count("Spend it?") == 2
    assert stage.service.spent == PRICE * len(stage.service.stored)
    assert len(stage.service.stored) >= BEGUN


def test_agreed_beforehand_it_is_quoted(shared, stage, monkeypatch, capfd):
    train(shared, monkeypatch, agreed=True)
    out = " ".join(capfd.readouterr().out.split())
    assert out.count("more than was agreed") == 1
    assert out.count("charge units") > 3


def test_nobody_to_ask_pays_nothing(shared, stage, monkeypatch):
    def leaves(*_):
        monkeypatch.setattr(sys, "stdin", io.StringIO())

    stage.service.after.append(leaves)
    with pytest.raises(UserError, match="--yes"):
        train(shared, monkeypatch, "y\n")
    assert stage.service.spent == 4 * PRICE


def test_what_fits_into_what_was_agreed_is_not_asked_again(run, stage, public, monkeypatch, capfd):
    """All of one request came free, answered to somebody else before: as much is left over."""
    one = run()

    def begin(context, response):
        store = AnswerStore.open(one.out / "answers")
        store.begin("other", sample_digests(public.unlabelled[:2]), ["probabilities"])

    def free(context):
        stage.service.charges = (0, 0)

    def dear(context, response):
        begin(context, response)
        stage.service.charges = (PRICE, 100)

    stage.service.before, stage.service.after = [free], [dear]
    train(one, monkeypatch, "y\n")
    assert capfd.readouterr().err.count("Spend it?") == 1
    assert stage.service.spent <= QUERIES * PRICE
