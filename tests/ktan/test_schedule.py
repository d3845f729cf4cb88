"""Stages over steps: shares, one schedule or several, and when queries are asked."""

import pytest

from ktan.errors import UserError
from ktan.methods import Stage
from ktan.schedule import StagePlan, in_rounds


def places(plan: StagePlan, steps: int) -> list[tuple[str, int, int]]:
    found = [plan.at(step) for step in range(steps)]
    return [(p.stage.name, p.schedule_step, p.schedule_steps) for p in found]


def test_one_stage_is_the_whole_run() -> None:
    assert places(StagePlan([Stage("training")], 3), 3) == [
        ("training", 0, 3),
        ("training", 1, 3),
        ("training", 2, 3),
    ]


def test_shares_are_relative_and_each_stage_has_its_own_schedule() -> None:
    plan = StagePlan([Stage("first", 1), Stage("then", 3)], 8)
    assert places(plan, 8) == [
        *[("first", step, 2) for step in range(2)],
        *[("then", step, 6) for step in range(6)],
    ]


def test_stages_that_do_not_restart_share_the_schedule_of_the_one_before() -> None:
    stages = [Stage("a"), Stage("b"), Stage("c", restarts=False), Stage("d", restarts=False)]
    found = places(StagePlan(stages, 8), 8)
    assert found == [
        ("a", 0, 2), ("a", 1, 2),
        ("b", 0, 6), ("b", 1, 6), ("c", 2, 6), ("c", 3, 6), ("d", 4, 6), ("d", 5, 6),
    ]  # fmt: skip


def test_every_step_belongs_to_one_stage_whatever_the_rounding() -> None:
    stages = [Stage(str(number), share) for number, share in enumerate((0.31, 0.7, 1.3, 0.11))]
    for steps in range(30, 60):
        plan = StagePlan(stages, steps)
        found = [plan.at(step).number for step in range(steps)]
        assert found == sorted(found)
        assert set(found) == {0, 1, 2, 3}


def test_a_stage_without_a_step_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="3 steps leave none for the stage 'short' of 2"):
        StagePlan([Stage("short", 0.01), Stage("long", 1)], 3)


def test_queries_are_due_from_the_first_step_of_a_stage_that_asks() -> None:
    plan = StagePlan([Stage("a"), Stage("b", asks=True), Stage("c"), Stage("d", asks=True)], 8)
    assert [plan.asked(step) for step in range(8)] == [0, 0, 1, 1, 1, 1, 2, 2]


def test_rounds_split_the_last_stage_under_one_schedule() -> None:
    stages = in_rounds([Stage("start", 1, ("hint",)), Stage("training", 3)], 3)
    assert [(s.name, s.share, s.terms, s.asks, s.restarts) for s in stages] == [
        ("start", 1, ("hint",), False, True),
        ("training 1", 1, None, False, True),
        ("training 2", 1, None, True, False),
        ("training 3", 1, None, True, False),
    ]
    plan = StagePlan(stages, 8)
    assert {plan.at(step).schedule_steps for step in range(2, 8)} == {6}
    assert in_rounds(stages, 1) == stages
    with pytest.raises(UserError, match="rounds of its own"):
        in_rounds(stages, 2)
    with pytest.raises(UserError, match="--rounds is 0"):
        in_rounds([Stage("training")], 0)
