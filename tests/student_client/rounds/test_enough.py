"""`--enough`: the rounds that are left ask for nothing and learn from what was answered."""

import grpc
import pytest

from ktan.errors import UserError
from student_client.errors import TeacherError
from student_client.runs import train_student
from student_client.screen import Screen
from tests.student_client.rounds.in_rounds import broken, fine, go, interrupting, selection
from tests.student_client.service import status


def test_a_budget_that_others_used_up_leaves_what_was_bought(run, stage, capfd):
    price = stage.service.charges[0]
    one = run()

    def others(context, response):
        stage.service.budget = stage.service.spent + price

    stage.service.after = [fine, others]
    with pytest.raises(TeacherError, match="does not cover 4 new answers"):
        train_student(one, Screen(), resume=False, agreed=True)
    out = capfd.readouterr().out
    assert "round 2 of 3 was not answered in full" in out
    assert "--resume --enough" in out.replace("\n", " ")
    assert f"--config {one.out / 'config.toml'} --resume" in out
    assert stage.service.spent == 4 * price
    with pytest.raises(UserError, match="give --resume, too"):
        go(run("other"), enough=True)
    # Without the service even: nothing more is asked.
    stage.stop()
    result = go(one, resume=True, enough=True)
    assert (result["answers"]["rounds"], result["answers"]["samples"]) == ([4], 4)
    assert result["steps"] == 15
    stage.start()


def test_enough_keeps_the_answered_part_of_a_round_and_stays_said(run, stage, monkeypatch):
    one = run()

    def exhausted(context):
        context.abort_with_status(
            status(grpc.StatusCode.FAILED_PRECONDITION, "BUDGET_EXHAUSTED", asked="2", left="0")
        )

    stage.service.before = [fine] * 3 + [exhausted]
    with pytest.raises(TeacherError):
        go(one)
    stage.stop()
    with monkeypatch.context() as patch:
        interrupting(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            go(one, resume=True, enough=True)
    assert selection(one)["rounds"] == [4, 2]
    assert go(one, resume=True)["answers"]["rounds"] == [4, 2]
    stage.start()


def test_enough_leaves_a_begun_request_alone(run, stage):
    """Whether it was charged only the service knows; sent again it may cost what nobody uses."""
    one = run()
    stage.service.before = [fine, fine, broken]
    with pytest.raises(TeacherError):
        go(one)
    before = stage.service.spent, len(stage.service.calls)
    (begun,) = (one.out / "answers/requests").iterdir()
    assert go(one, resume=True, enough=True)["answers"]["rounds"] == [4]
    assert (stage.service.spent, len(stage.service.calls)) == before
    assert begun.exists()


def test_enough_needs_a_first_round(run, stage):
    one = run()
    stage.service.before = [broken]
    with pytest.raises(TeacherError):
        go(one)
    with pytest.raises(UserError, match="the first round is not answered yet"):
        go(one, resume=True, enough=True)
