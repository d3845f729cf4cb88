"""What a method needs, whether a teacher's taps give it, and which of them it has to pay for."""

import pytest

from ktan.errors import UserError
from ktan.methods import METHODS, Need
from ktan.methods.needs import NeedKind, missing, require, serving, taps_for
from ktan.teacher import AnswerTap

PROBABILITIES = AnswerTap("probabilities", "probabilities", (10,), noise_sd=0.1)
LOGITS = AnswerTap("logits", "logits", (10,))
VECTOR = AnswerTap("hint", "hint", (8,))
NOISY_MAP = AnswerTap("hint.noisy", "hint", (4, 6, 6), noise_sd=0.5)
MAP = AnswerTap("hint.one", "hint", (4, 6, 6))
NEXT_MAP = AnswerTap("hint.two", "hint", (8, 3, 3))
TSL = AnswerTap("tsl", "tsl", (4, 6, 6))
ATTENTION = AnswerTap("attention", "attention", (6, 6), noise_sd=0.2)
SIGNS = AnswerTap("signs", "signs", (4, 6, 6))
PRODUCTS = AnswerTap("products", "products", (4, 8))


def named(*taps: AnswerTap) -> dict[str, AnswerTap]:
    return {tap.name: tap for tap in taps}


@pytest.mark.parametrize(
    ("kind", "answered", "used"),
    [
        # One response is enough, and probabilities are taken first wherever they stand.
        ("response", (LOGITS, PROBABILITIES), [PROBABILITIES]),
        ("response", (LOGITS, VECTOR), [LOGITS]),
        ("response", (VECTOR, TSL), []),
        ("logits", (PROBABILITIES, LOGITS), [LOGITS]),
        ("logits", (PROBABILITIES,), []),
        # Every hint and TSL, noisy or not, in the teacher's order.
        ("hint", (TSL, NOISY_MAP, ATTENTION, VECTOR), [TSL, NOISY_MAP, VECTOR]),
        ("hint", (ATTENTION, SIGNS, PRODUCTS), []),
        # Neither a vector, nor noise, nor a TSL's output is a whole map of the teacher's.
        ("maps", (VECTOR, NOISY_MAP, TSL, NEXT_MAP), [NEXT_MAP]),
        ("maps", (VECTOR, NOISY_MAP, TSL), []),
        # Attention and products are derived from maps only where no tap of them is answered.
        ("attention", (MAP, ATTENTION, NEXT_MAP), [ATTENTION]),
        ("attention", (MAP, NOISY_MAP, NEXT_MAP), [MAP, NEXT_MAP]),
        ("attention", (VECTOR, NOISY_MAP, TSL), []),
        ("products", (MAP, NEXT_MAP, PRODUCTS), [PRODUCTS]),
        ("products", (MAP, VECTOR, NEXT_MAP), [MAP, NEXT_MAP]),
        # A product is of two maps, and a noisy one is none.
        ("products", (MAP, NOISY_MAP), []),
        # Signs are of what goes into an activation: no map shows them.
        ("signs", (MAP, SIGNS), [SIGNS]),
        ("signs", (MAP, NEXT_MAP), []),
    ],
)
def test_which_taps_serve_a_need(
    kind: NeedKind, answered: tuple[AnswerTap, ...], used: list[AnswerTap]
) -> None:
    need, taps = Need(kind), named(*answered)
    assert taps_for(need, taps) == used
    assert serving([need], taps) == named(*used)
    assert missing([need], taps) == ([] if used else [need.text])


def test_fewer_than_needed_are_none() -> None:
    two = Need("maps", least=2)
    assert taps_for(two, named(MAP, NOISY_MAP)) == []
    assert missing([two], named(MAP)) == [two.text]
    assert two.text.startswith("two whole maps without noise")
    assert taps_for(two, named(MAP, NEXT_MAP)) == [MAP, NEXT_MAP]


def test_serving_keeps_the_teachers_order_and_names_a_tap_once() -> None:
    taps = named(MAP, PROBABILITIES, LOGITS, ATTENTION, NEXT_MAP)
    needs = (Need("response"), Need("hint"), Need("maps"))
    assert list(serving(needs, taps)) == ["hint.one", "probabilities", "hint.two"]


def test_what_is_lacking_is_named_with_the_option_that_brings_it() -> None:
    needs = (Need("response"), Need("attention"), Need("signs"))
    assert missing(needs, named(LOGITS, NOISY_MAP)) == [
        "attention (--taps attention=PATH)",
        "signs (--taps signs=PATH)",
    ]
    with pytest.raises(UserError) as refusal:
        require(needs, named(LOGITS, NOISY_MAP), "mine")
    assert str(refusal.value) == (
        "method mine needs attention (--taps attention=PATH) and signs (--taps signs=PATH); the "
        "teacher answers logits (logits), hint.noisy (hint): choose a method that these serve, or "
        "ask its custodian for more"
    )
    with pytest.raises(UserError, match="the teacher answers nothing"):
        require(needs, {}, "mine")
    require(needs, named(LOGITS, MAP, SIGNS), "mine")


def test_what_is_optional_is_never_missing_and_always_used() -> None:
    needs = (Need("logits"), Need("maps", optional=True))
    assert missing(needs, named(LOGITS)) == []
    require(needs, named(LOGITS), "method")
    assert missing(needs, named(MAP)) == ["logits"]
    assert list(serving(needs, named(LOGITS, MAP, NOISY_MAP))) == ["logits", "hint.one"]
    assert list(serving(needs, named(LOGITS, VECTOR))) == ["logits"]
    assert needs[1].text.endswith(", if there is any")


def test_methods_that_take_more_where_there_is_more() -> None:
    taps = named(LOGITS, MAP, NOISY_MAP)
    assert list(serving(METHODS["ksanc"]().needs, taps)) == ["logits", "hint.one"]
    assert list(serving(METHODS["meal"]().needs, taps)) == ["logits", "hint.one", "hint.noisy"]
    # Without its earlier stages MEAL pays for no hint.
    assert list(serving(METHODS["meal"](stage_weight=0.0).needs, taps)) == ["logits"]  # type: ignore[call-arg]


def test_a_method_without_needs_pays_for_nothing() -> None:
    taps = named(PROBABILITIES, MAP, TSL)
    for name in ("local", "byot", "fixmatch"):
        assert serving(METHODS[name]().needs, taps) == {}
        require(METHODS[name]().needs, {}, name)
