"""Several methods as one: their terms, players, stages and options."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from ktan.errors import UserError
from ktan.methods import Binding, Objective, Stage, Term
from ktan.methods.attention_transfer import AttentionTransfer
from ktan.methods.combination import Combination, merged, method_options, parse_method
from ktan.methods.ktan import KTAN
from ktan.methods.soft_logits import SoftLogits
from ktan.networks import NetworkStages
from ktan.teacher import AnswerTap


def objective(*names: str, stages: tuple[Stage, ...] = (Stage("training"),)) -> Objective:
    """A term of value i for the i-th name."""
    terms = [
        Term(name, "student", 1.0, lambda view, batch, v=float(number): torch.tensor(v))
        for number, name in enumerate(names)
    ]
    return Objective(terms, stages=stages)


def opponent(name: str) -> Objective:
    module = nn.Linear(2, 1)
    return Objective(
        [
            Term("local", "student", 1.0, lambda view, batch: torch.tensor(0.0)),
            Term(name, "judge", 1.0, lambda view, batch: module.weight.sum()),
        ],
        {"judge": {"only": module}},
    )


def test_a_shared_term_is_taken_once_from_the_first() -> None:
    both = merged([objective("local", "kd"), objective("other", "local")], ["a", "b"])
    assert [term.name for term in both.terms] == ["local", "kd", "other"]
    values = {name: float(v) for name, v in both.losses("student", None, None).items()}  # type: ignore[arg-type]
    assert values == {"local": 0.0, "kd": 1.0, "other": 0.0}


def test_opponents_of_one_name_stay_apart_and_move_before_the_student() -> None:
    both = merged([opponent("one"), opponent("two")], ["a", "b"])
    assert both.players == ("a judge", "b judge", "student")
    assert not {id(p) for p in both.learnables("a judge")} & {
        id(p) for p in both.learnables("b judge")
    }
    assert set(both.losses("b judge", None, None)) == {"two"}  # type: ignore[arg-type]
    assert both.learnables("student") == []


def test_initial_stages_follow_one_another_and_the_last_is_everybodys() -> None:
    start = (Stage("start", 0.3, ("hint",)), Stage("training", 0.7))
    first = objective("local", "hint", stages=start)
    second = objective("signs", stages=(Stage("init", 0.2, ("signs",)), Stage("training", 0.8)))
    third = objective("extra")
    both = merged([first, second, third], ["a", "b", "c"])
    assert [(stage.name, stage.terms) for stage in both.stages] == [
        ("start", ("hint",)),
        ("init", ("signs",)),
        ("training", None),
    ]


def test_two_schedules_of_their_own_do_not_combine() -> None:
    rounds = (Stage("one"), Stage("two", asks=True))
    staged = objective("a", stages=rounds)
    assert merged([staged, objective("b")], ["a", "b"]).stages == rounds
    with pytest.raises(UserError, match="a and b both have a schedule of their own"):
        merged([staged, objective("b", stages=rounds)], ["a", "b"])


def test_parsing_gives_options_to_the_parts_that_have_them() -> None:
    one = parse_method("soft-logits", {"kd_weight": 2})
    assert one == SoftLogits(kd_weight=2.0)
    both = parse_method("ktan+at", {"kd_weight": 2.0, "at.attention_weight": 5.0})
    assert both.name == "ktan+at"
    assert both == Combination((KTAN(kd_weight=2.0), AttentionTransfer(1.0, 2.0, 5.0)))
    options = method_options(both)
    assert options["ktan.kd_weight"] == options["at.kd_weight"] == 2.0
    assert options["at.attention_weight"] == 5.0


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("kant", {}, "no method is called 'kant'; choose one of ab, at, "),
        ("ktan+kant", {}, "no method is called 'kant'"),
        ("ktan+ktan", {}, "names a method twice"),
        ("ktan", {"weight": 1.0}, "the method ktan has no option 'weight'; it has local_weight"),
        ("ktan+at", {"local.kd_weight": 1.0}, "has no option 'local.kd_weight'"),
        ("ktan", {"kd_weight": "much"}, "give a value like 3.0"),
        ("local", {"kd_weight": 1.0}, "it has none"),
    ],
)
def test_mistakes_are_named(text: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_method(text, settings)


@dataclass(frozen=True)
class Reader:
    """A method that tells which taps it sees."""

    name: ClassVar[str] = "reader"
    needs: ClassVar[tuple[()]] = ()
    reads: str = ""

    def teacher_taps(self, stages: NetworkStages) -> tuple[object, ...]:
        return (SoftLogits().teacher_taps(stages)[0],) if not self.reads else ()

    def build(self, binding: Binding) -> Objective:
        raise UserError(",".join(binding.taps))


def test_a_part_sees_its_own_taps_of_a_local_teacher_and_all_of_a_remote_one() -> None:
    taps = {name: AnswerTap(name, "probabilities", (3,)) for name in ("probabilities@T=4", "other")}
    for stages, seen in ((NetworkStages((), (), ""), "probabilities@T=4"), (None, ".*,other")):
        binding = Binding(nn.Identity(), (3,), 3, taps, teacher_stages=stages)
        with pytest.raises(UserError, match=f"^{seen}$"):
            Combination((Reader(), SoftLogits())).build(binding)  # type: ignore[arg-type]
