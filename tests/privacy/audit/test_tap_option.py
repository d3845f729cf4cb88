"""The command-line form of taps."""

import pytest

from privacy.audit.proposal import TapProposal
from privacy.audit.tap_option import parse_taps
from privacy.errors import InvalidPlan


def test_reads_all_forms() -> None:
    taps = parse_taps(
        ("logits", "probabilities", "hint:8", "hint=layer3:16"),
        ("probabilities=0.9", "hint.layer3=0.25"),
        classes=7,
    )
    assert taps == (
        TapProposal("logits", "logits", 7, 1.0),
        TapProposal("probabilities", "probabilities", 7, 0.9),
        TapProposal("hint", "hint", 8, 1.0),
        TapProposal("hint.layer3", "hint", 16, 0.25, path="layer3"),
    )


def test_reads_what_is_derived_from_features_by_its_number_of_values() -> None:
    taps = parse_taps(("attention:16", "hint:8", "attention:4"), ("attention.2=0.5",), classes=7)
    assert taps == (
        TapProposal("attention", "attention", 16, 1.0),
        TapProposal("hint", "hint", 8, 1.0),
        TapProposal("attention.2", "attention", 4, 0.5),
    )
    with pytest.raises(InvalidPlan, match="attention:VALUES"):
        parse_taps(("attention=layer3:4",), (), 10)


@pytest.mark.parametrize(
    "text", ["hint", "hint:", "hint:0", "hint:-1", "hint:x", "hint=a:map", "nothing", "", "x:8"]
)
def test_refuses_any_other_form(text: str) -> None:
    with pytest.raises(InvalidPlan, match="hint:8"):
        parse_taps((text,), (), 10)


@pytest.mark.parametrize(
    "share",
    [
        "probabilities",
        "probabilities=",
        "=1",
        "probabilities=x",
        "probabilities=0",
        "probabilities=-1",
        "probabilities=nan",
        "probabilities=inf",
        "",
    ],
)
def test_refuses_any_other_weight(share: str) -> None:
    with pytest.raises(InvalidPlan, match="TAP=WEIGHT"):
        parse_taps(("probabilities",), (share,), 10)


def test_a_share_of_no_tap_and_a_tap_twice_are_refused() -> None:
    with pytest.raises(InvalidPlan, match="hint"):
        parse_taps(("probabilities",), ("hint=0.1",), 10)
    with pytest.raises(InvalidPlan, match="twice"):
        parse_taps(("logits", "logits"), (), 10)
