"""What a method uses where a teacher answers it, and does without where it does not."""

from ktan.methods import METHODS
from ktan.methods.needs import Need, missing, require, serving
from ktan.teacher import AnswerTap

LOGITS = AnswerTap("logits", "logits", (10,))
MAP = AnswerTap("hint", "hint", (4, 6, 6))
HINT = AnswerTap("hint.b", "hint", (8,), noise_sd=0.5)
NEEDS = (Need("logits"), Need("maps", optional=True))


def test_what_is_optional_is_never_missing_and_always_used():
    assert missing(NEEDS, {"logits": LOGITS}) == []
    require(NEEDS, {"logits": LOGITS}, "method")
    assert missing(NEEDS, {"hint": MAP}) == ["logits"]
    taps = {"logits": LOGITS, "hint": MAP, "hint.b": HINT}
    assert list(serving(NEEDS, taps)) == ["logits", "hint"]
    assert list(serving(NEEDS, {"logits": LOGITS, "hint.b": HINT})) == ["logits"]
    assert NEEDS[1].text.endswith(", if there is any")


def test_methods_that_take_more_where_there_is_more():
    taps = {"logits": LOGITS, "hint": MAP, "hint.b": HINT}
    assert list(serving(METHODS["ksanc"]().needs, taps)) == ["logits", "hint"]
    assert list(serving(METHODS["meal"]().needs, taps)) == ["logits", "hint", "hint.b"]
    # Without its earlier stages MEAL pays for no hint.
    assert list(serving(METHODS["meal"](stage_weight=0.0).needs, taps)) == ["logits"]
