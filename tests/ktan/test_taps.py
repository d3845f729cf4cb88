"""A tap's forms on the command line, its shape, and its values."""

import pytest
import torch

from ktan.errors import UserError
from ktan.taps import Tap, parse_tap, parse_taps, pool


@pytest.mark.parametrize(
    ("text", "tap"),
    [
        ("logits", Tap("logits", "logits")),
        ("probabilities", Tap("probabilities", "probabilities", temperature=1.0)),
        ("probabilities@T=3", Tap("probabilities", "probabilities", temperature=3.0)),
        ("probabilities@T=0.5", Tap("probabilities", "probabilities", temperature=0.5)),
        ("hint=features", Tap("hint", "hint", path="features")),
        ("hint=a.b.input:8", Tap("hint", "hint", path="a.b.input", dimensions=8)),
        ("hint=features.layer2:map", Tap("hint", "hint", path="features.layer2", whole_map=True)),
    ],
)
def test_forms_of_a_tap(text: str, tap: Tap) -> None:
    assert parse_tap(text) == tap
    assert tap.text == text
    assert Tap.from_json(tap.to_json()) == tap


@pytest.mark.parametrize(
    "text",
    ["", "logit", "logits@T=3", "probabilities@3", "probabilities@T=0", "probabilities@T=-1",
     "probabilities@T=1e999", "probabilities@T=--", "hint", "hint=", "hint=x:0", "hint=x:y",
     "hint=x:3:map", "hint=x:-1"],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="tap"):
        parse_tap(text)


def test_names_of_several_taps() -> None:
    names = [tap.name for tap in parse_taps(["hint=a:8", "logits", "hint=b.c", "probabilities"])]
    assert names == ["hint", "logits", "hint.b.c", "probabilities"]
    for twice in (["logits", "logits"], ["hint=a", "hint=a:3"], ["hint=b", "hint=a", "hint=a"]):
        with pytest.raises(UserError, match="twice"):
            parse_taps(twice)
    with pytest.raises(UserError, match="at least one tap"):
        parse_taps([])


def test_shapes_and_values_of_taps() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    feature = torch.arange(24.0).view(1, 2, 3, 4)
    shapes = {"f": (2, 3, 4)}
    tap = parse_tap("probabilities@T=2").with_shape(3, shapes)
    assert tap.shape == (3,)
    expected = torch.tensor([0.5, 1.0, 2.0]).exp()
    torch.testing.assert_close(tap.read(logits, {})[0], expected / expected.sum())
    assert torch.equal(parse_tap("logits").read(logits, {}), logits)
    pooled = parse_tap("hint=f").with_shape(3, shapes)
    assert pooled.shape == (2,)
    assert pooled.read(logits, {"f": feature}).tolist() == [[5.5, 17.5]]
    whole = parse_tap("hint=f:map").with_shape(3, shapes)
    assert whole.shape == (2, 3, 4)
    assert torch.equal(whole.read(logits, {"f": feature}), feature)
    assert parse_tap("hint=f:1").with_shape(3, shapes).shape == (1,)
    with pytest.raises(UserError, match="has 2 dimensions, fewer than 3"):
        parse_tap("hint=f:3").with_shape(3, shapes)
    tokens = torch.arange(12.0).view(1, 3, 4)
    assert torch.equal(pool(tokens), tokens.mean(1))
