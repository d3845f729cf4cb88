"""Queries in rounds: who chooses, what is agreed, what is paid, and what goes on after a fault."""

import json
import os
import signal
from dataclasses import replace

import grpc
import pytest
import safetensors.numpy
import torch

from ktan import pupil
from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.trainer import TrainerOptions
from student_client import asking, results, runs
from student_client.connection import Connection
from student_client.errors import TeacherError
from student_client.options import CourseOptions, QueryOptions, StudentOptions, chosen_method
from student_client.public_data import PublicData
from student_client.queries import choose, choose_further, portions, read_selection, write_selection
from student_client.runs import Run, train_student
from student_client.screen import Screen
from tests.student_client.conftest import status

PRICE = 1000
QUERIES, ROUNDS = 12, 3
RECIPE = SplitRecipe(private=60, labelled=30, unlabelled=60, test=20)
DATA = DataSource(dataset="fake", size=200)
SPEC = NetworkSpec("cnn-small", (1, 28, 28), 10)


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """One thread, and no picture: drawing takes longer than these trainings."""
    monkeypatch.setattr(results, "plot_curves", lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
            QueryOptions(queries=QUERIES, select=select, select_steps=2, query_batch=2),
            TrainerOptions(**trainer), Connection(plaintext=True, patience=1),
            CourseOptions(rounds=rounds),
        )  # fmt: skip

    return make


def go(one, *, resume=False, enough=False, agreed=True):
    return train_student(one, Screen(quiet=True), resume=resume, agreed=agreed, enough=enough)


def weights(one):
    return safetensors.numpy.load_file(one.out / "student/weights.safetensors")


def selection(one):
    return json.loads((one.out / "selection.json").read_text())


def same(one, two):
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    return all((first[name] == second[name]).all() for name in first)


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


def broken(context, *_):
    context.abort(grpc.StatusCode.UNKNOWN, "broken")


def fine(*_):
    pass


@pytest.mark.parametrize("method", ["soft-logits", "rona"])
def test_a_run_cut_off_at_every_request_ends_as_if_it_had_not_been(run, stage, method):
    steps = 45 if method == "rona" else 15
    cut = run("cut", method=method, steps=steps)
    for number in range(6):
        # What an earlier run began is sent again first, and comes; the next request does not.
        faults = [fine, broken] if number else [broken]
        if number % 2:
            stage.service.before = faults
        else:
            stage.service.after = faults
        with pytest.raises(TeacherError):
            go(cut, resume=number > 0)
        stage.service.before, stage.service.after = [], []
    go(cut, resume=True)
    price = sum(stage.service.charges) if method == "rona" else stage.service.charges[0]
    assert stage.service.spent == QUERIES * price
    ids = [request_id for request_id, _ in stage.service.calls]
    assert (len(ids), len(set(ids))) == (12, 6)
    # Asked again they cost nothing, and are the same.
    whole = run("whole", method=method, steps=steps)
    result = go(whole)
    assert stage.service.spent == QUERIES * price
    if method == "rona":
        assert {"local", "kd", "hint", "adversarial", "discriminator"} <= set(result["last"])
    assert selection(cut) == selection(whole)
    assert same(cut, whole)


def interrupting(monkeypatch, after):
    """Ctrl-C at the checkpoint of step `after`."""
    save = pupil.save_checkpoint

    def saving(path, modules, optimisers, state, device):
        save(path, modules, optimisers, state, device)
        if state["step"] == after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(pupil, "save_checkpoint", saving)


@pytest.mark.parametrize("after", [4, 5, 12])
def test_a_run_cut_off_in_the_middle_of_a_round_ends_with_the_same_weights(
    run, stage, monkeypatch, after
):
    whole, cut = run("whole"), run("cut")
    go(whole)
    before = len(stage.service.calls)
    with monkeypatch.context() as patch:
        interrupting(patch, after)
        with pytest.raises(KeyboardInterrupt):
            go(cut)
    go(cut, resume=True)
    assert selection(cut) == selection(whole)
    assert same(cut, whole)
    # What was answered before the cut was not asked again.
    assert len(stage.service.calls) - before == 6


def test_killed_between_choosing_and_asking_it_asks_about_the_same_samples(run, stage, monkeypatch):
    whole, cut = run("whole"), run("cut")
    go(whole)
    before = len(stage.service.calls)
    record = asking.write_selection

    class Killed(BaseException):
        pass

    def killed(folder, chosen):
        record(folder, chosen)
        if len(chosen.rounds) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(asking, "write_selection", killed)
        with pytest.raises(Killed):
            go(cut)
    assert len(stage.service.calls) - before == 2
    chosen = selection(cut)["positions"]
    # Another student would choose otherwise: what is recorded stands.
    monkeypatch.setattr(asking, "choose_further", refusing_the_second(asking.choose_further))
    go(cut, resume=True)
    assert selection(cut)["positions"][:8] == chosen
    assert same(cut, whole)


def refusing_the_second(choose):
    def further(public, student, path, options, trainer, before, count):
        assert len(before.rounds) == 2, "a round was chosen twice"
        return choose(public, student, path, options, trainer, before, count)

    return further


def test_hints_are_scaled_by_the_first_rounds_answers_also_on_resuming(run, stage, monkeypatch):
    seen = []
    bind = runs.bind_method

    def spy(method, student, spec, taps, given, values, seed):
        seen.append({name: value.clone() for name, value in values.items()})
        return bind(method, student, spec, taps, given, values, seed)

    monkeypatch.setattr(runs, "bind_method", spy)
    whole, cut = (run(name, method="rona", steps=45) for name in ("whole", "cut"))
    go(whole)
    with monkeypatch.context() as patch:
        interrupting(patch, 40)
        with pytest.raises(KeyboardInterrupt):
            go(cut)
    go(cut, resume=True)
    # A rehearsal with blanks each time, then the real answers.
    first, second, third = (values["hint"] for values in seen[1::2])
    assert len(first) == 4
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert same(cut, whole)


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
