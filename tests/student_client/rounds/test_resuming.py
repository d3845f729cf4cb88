"""A run in rounds that was cut off goes on as if it had not been."""

import pytest
import torch

from student_client import asking, runs
from student_client.errors import TeacherError
from tests.student_client.rounds.in_rounds import (
    QUERIES,
    broken,
    fine,
    go,
    interrupting,
    same,
    selection,
)


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
        seen.append(
            {name: value[torch.arange(len(value))].clone() for name, value in values.items()}
        )
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
