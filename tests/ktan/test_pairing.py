"""Each tap is imitated by the point of the student that suits its kind and shape."""

import pytest
import torch

from ktan.errors import UserError
from ktan.networks import NetworkSpec, build, stages_of
from ktan.pairing import pair_taps
from ktan.tap_kinds import TapKind
from ktan.teacher import AnswerTap


def tap(kind: TapKind, *shape: int, name: str = "") -> AnswerTap:
    return AnswerTap(name or kind, kind, shape)


def pairs(
    network: str,
    *taps: AnswerTap,
    given: dict[str, tuple[str, ...]] | None = None,
    shape: tuple[int, ...] = (3, 32, 32),
) -> dict[str, tuple[str, ...]]:
    spec = NetworkSpec(network, shape, 10)
    named = {tap.name: tap for tap in taps}
    return pair_taps(named, build(spec), shape, stages_of(spec), given)


def test_a_vector_meets_the_features_before_the_classifier() -> None:
    assert pairs("cnn-small", tap("hint", 8), shape=(1, 28, 28)) == {"hint": ("features",)}
    assert pairs("resnet8", tap("hint", 8), tap("tsl", 16)) == {
        "hint": ("features",),
        "tsl": ("features",),
    }


@pytest.mark.parametrize(("side", "layer"), [(32, 1), (16, 2), (8, 3)])
def test_maps_attention_and_signs_meet_the_stage_of_their_size(side: int, layer: int) -> None:
    path = f"features.layer{layer}"
    found = pairs(
        "resnet8",
        tap("hint", 64, side, side),
        tap("tsl", 16, side, side),
        tap("attention", side, side),
        tap("signs", 5, side, side),
    )
    assert found == {
        "hint": (path,),
        "tsl": (path,),
        "attention": (path,),
        "signs": (f"{path}.0.relu.input",),
    }


def test_a_size_that_the_student_has_not_goes_by_order_from_the_last() -> None:
    found = pairs("resnet8", tap("attention", 7, 7), tap("attention", 5, 5, name="attention.b"))
    assert found == {"attention": ("features.layer2",), "attention.b": ("features.layer3",)}


def test_a_vector_beside_maps_takes_no_stage_from_them() -> None:
    maps = (tap("hint", 4, 7, 7), tap("hint", 4, 5, 5, name="hint.b"))
    found = pairs("cnn-small", *maps, tap("hint", 8, name="hint.c"), shape=(1, 28, 28))
    one, two = stages_of(NetworkSpec("cnn-small", (1, 28, 28), 10)).maps
    assert found == {"hint": (one,), "hint.b": (two,), "hint.c": ("features",)}


def test_products_meet_the_last_stages_in_order() -> None:
    found = pairs("resnet8", tap("products", 4, 4), tap("products", 8, name="products.b"))
    assert found == {
        "products": ("features.layer1", "features.layer2"),
        "products.b": ("features.layer2", "features.layer3"),
    }
    with pytest.raises(UserError, match="too few to imitate the tap 'products'"):
        pairs("resnet8", *(tap("products", 4, name=f"products{n or ''}") for n in range(3)))


def test_opinions_need_no_path_and_given_paths_are_taken() -> None:
    assert pairs("resnet8", tap("probabilities", 10), tap("logits", 10)) == {}
    given: dict[str, tuple[str, ...]] = {"hint": ("features.layer1",)}
    assert pairs("resnet8", tap("hint", 8), given=given) == given


def test_looking_for_a_map_leaves_the_student_as_it_is() -> None:
    spec = NetworkSpec("resnet8", (3, 32, 32), 10)
    student = build(spec).train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    pair_taps({"hint": tap("hint", 4, 8, 8)}, student, (3, 32, 32), stages_of(spec))
    assert student.training
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert not any(module._forward_hooks for module in student.modules())


def test_a_student_without_maps_cannot_imitate_one() -> None:
    with pytest.raises(UserError, match="0 stages of maps"):
        pairs("mlp-small", tap("hint", 4, 8, 8))


def test_an_unknown_tap_is_named() -> None:
    with pytest.raises(UserError, match="answers no hint 'sound'; it answers hint"):
        pairs("resnet8", tap("hint", 8), given={"sound": ("features",)})
