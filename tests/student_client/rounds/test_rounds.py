"""Queries in rounds: who chooses, what is agreed, and what is paid."""

import json
from dataclasses import replace

import pytest
import torch

from ktan.errors import UserError
from ktan.methods import Stage
from ktan.networks import NetworkSpec, build
from ktan.parallel import Group
from ktan.ranks import Ranks
from ktan.schedule import in_rounds
from ktan.trainer import TrainerOptions
from student_client.asking import Asking
from student_client.errors import TeacherError
from student_client.options import QueryOptions, StudentOptions, chosen_method
from student_client.queries import choose, choose_further, portions, read_selection, write_selection
from student_client.runs import train_student
from student_client.screen import Screen
from tests.student_client.rounds.in_rounds import QUERIES, ROUNDS, go, selection

SPEC = NetworkSpec("cnn-small", (1, 28, 28), 10)


@pytest.mark.parametrize(
    ("queries", "rounds", "expected"),
    [(12, 3, (4, 4, 4)), (14, 4, (4, 4, 3, 3)), (5, 5, (1,) * 5), (7, 1, (7,))],
)
def test_queries_are_split_evenly(queries, rounds, expected):
    assert portions(queries, rounds, 20) == expected


@pytest.mark.parametrize(
    ("queries", "rounds", "message"),
    [(3, 4, "at least 4"), (3, 0, "--rounds is 0"), (30, 2, "20 unlabelled")],
)
def test_rounds_that_cannot_be_are_refused(queries, rounds, message):
    with pytest.raises(UserError, match=message):
        portions(queries, rounds, 20)


def test_later_rounds_are_chosen_by_the_student_as_it_stands(public, tmp_path):
    torch.manual_seed(0)
    network = build(SPEC)
    options = QueryOptions(queries=QUERIES, select="margin", select_steps=0)
    trainer = TrainerOptions(device="cpu", precision="float32")
    first = choose(public, network, "features", options, trainer, count=4)
    torch.manual_seed(9)
    later = build(SPEC).train()
    both = choose_further(public, later, "features", options, trainer, first, 5)
    assert later.training
    assert both.rounds == (4, 5)
    assert both.rows[:4].tolist() == first.rows.tolist()
    # By hand: the smallest top-two gaps of the later student, without what was chosen before.
    with torch.no_grad():
        logits = later.eval()(public.normalisation(public.unlabelled))
    top = logits.softmax(dim=1).topk(2, dim=1).values
    gaps = (top[:, 0] - top[:, 1]).index_fill(0, first.rows, float("inf"))
    assert set(both.rows[4:].tolist()) == set(gaps.argsort()[:5].tolist())
    write_selection(tmp_path, both)
    again = read_selection(tmp_path, public)
    assert again.rows.tolist() == both.rows.tolist()
    assert again.rounds == (4, 5)
    assert again.upto(1).rows.tolist() == first.rows.tolist()


def test_a_selection_recorded_before_there_were_rounds_is_one_round(public, tmp_path):
    positions = public.split.unlabelled[:5].tolist()
    (tmp_path / "selection.json").write_text(json.dumps({"positions": positions}))
    found = read_selection(tmp_path, public)
    assert (found.rounds, found.closed) == ((5,), False)


def test_the_price_of_all_rounds_is_agreed_once_before_anything_is_spent(run, stage, capfd):
    result = train_student(run(), Screen(), resume=False, agreed=True)
    out = capfd.readouterr().out
    price = stage.service.charges[0]
    assert out.count("new answers") == 1
    assert f"12 new answers × at most {price:,}" in out
    assert "12 of 60 public samples in 3 rounds, chosen by margin" in out
    assert result["answers"]["rounds"] == [4, 4, 4]
    assert result["answers"]["samples"] == QUERIES
    assert stage.service.spent == QUERIES * price
    # Two requests of two samples a round, and no sample twice.
    assert [count for _, count in stage.service.calls] == [2] * 6
    positions = selection(run())["positions"]
    assert len(set(positions)) == QUERIES


def test_without_a_yes_no_round_is_asked(run, stage):
    with pytest.raises(UserError, match="--yes"):
        go(run(), agreed=False)
    assert stage.service.calls == []
    stage.service.budget = 5 * stage.service.charges[0]
    with pytest.raises(TeacherError, match="does not cover 12 new answers"):
        go(run())
    assert stage.service.calls == []


def test_rounds_may_use_answers_that_another_run_paid_for(run, stage, tmp_path, capfd):
    def sharing(out, **options):
        one = run(out, **options)
        return replace(one, queries=replace(one.queries, answers=tmp_path / "answers"))

    price = stage.service.charges[0]
    stage.service.budget = QUERIES * price
    go(sharing("first", select="random", rounds=1))
    assert stage.service.spent == stage.service.budget
    # Nothing is left, and every later round's samples are here: chosen at random in the same order.
    result = train_student(sharing("second", select="random"), Screen(), resume=False, agreed=True)
    assert "Left then 0 charge units, 0 more answers" in capfd.readouterr().out
    assert result["answers"]["rounds"] == [4, 4, 4]
    assert selection(run("second"))["positions"] == selection(run("first"))["positions"]
    # Where some of them cannot be here, all that is certain to be new is held against the budget.
    other = sharing("third", select="random")
    with pytest.raises(TeacherError, match="does not cover 3 new answers"):
        go(replace(other, queries=replace(other.queries, queries=QUERIES + 3)))


def test_what_a_round_chose_is_recorded_before_it_is_asked(run, stage):
    recorded = []

    def look(context):
        recorded.append(selection(one)["rounds"])

    one = run()
    stage.service.before = [look] * 6
    go(one)
    assert recorded == [[4], [4], [4, 4], [4, 4], [4, 4, 4], [4, 4, 4]]


def test_epochs_are_passes_over_the_answers_to_all_rounds(run):
    result = go(run(steps=None, epochs=4))
    assert result["steps"] == 4 * 3


def test_a_run_too_short_for_its_stages_is_refused_before_it_costs(run, stage):
    with pytest.raises(UserError, match="4 steps leave none for the stage"):
        go(run(method="rona", steps=4))
    assert stage.service.calls == []


def test_a_methods_own_rounds_are_set_by_the_same_option():
    def rounds(name, given, **settings):
        options = StudentOptions(
            method=name, method_set=tuple(f"{key}={value}" for key, value in settings.items())
        )
        method = chosen_method(options, teacher=True, rounds=given)
        return getattr(method, "rounds", None)

    assert rounds("rona", None) == 5
    assert rounds("rona", 3) == 3
    assert rounds("rona", 3, rounds=2) == 3
    assert rounds("ktan", 3) is None
    with pytest.raises(UserError, match="rounds is 0"):
        rounds("rona", 0)


def test_rounds_of_nobodys_queries_are_refused(run, tmp_path):
    one = run(method="local")
    with pytest.raises(UserError, match="nobody is asked here"):
        go(one)


class Free:
    """A source that may be asked for nothing."""

    def agree(self, *_):
        raise AssertionError("a price was agreed on")


@pytest.mark.parametrize(("processes", "fits"), [(2, True), (4, True), (3, False), (8, False)])
def test_what_processes_cannot_share_is_refused_before_a_price_is_named(
    public, run, tmp_path, processes, fits
):
    # Portions of four: steps of four from the first round on.
    one = run()
    asking = Asking(
        public, Free(), one.queries, one.trainer, "features", tmp_path, Screen(quiet=True), None,
        Group(Ranks(0, processes)),
    )  # fmt: skip
    stages = in_rounds([Stage("training")], ROUNDS)
    message = "price" if fits else f"4 answered samples, which {processes} processes"
    with pytest.raises(AssertionError if fits else UserError, match=message):
        asking.begin(build(SPEC), stages)


def test_who_does_not_see_the_first_ones_choice_does_not_choose(public, run, tmp_path):
    one = run()
    asking = Asking(
        public, Free(), one.queries, one.trainer, "features", tmp_path, Screen(quiet=True), None,
        Group(Ranks(1, 2)),
    )  # fmt: skip
    with pytest.raises(UserError, match="all must see the same files"):
        asking.begin(build(SPEC), in_rounds([Stage("training")], ROUNDS))
    assert not list(tmp_path.glob("selection.json"))
