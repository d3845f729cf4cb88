"""Each hint is imitated by a module of the student that has its shape's kind."""

import pytest
import torch

from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.teacher import AnswerTap
from student_client.hints import student_paths

VECTOR = {"hint": AnswerTap("hint", "hint", (8,))}
MAP = {"hint": AnswerTap("hint", "hint", (32, 4, 4))}


def _paths(name, taps, given=None, shape=(1, 28, 28)):
    spec = NetworkSpec(name, shape, 10)
    return student_paths(build(spec), spec, taps, given or {})


def test_a_vector_meets_the_features_before_the_classifier():
    assert _paths("cnn-small", VECTOR) == {"hint": "features"}
    assert _paths("resnet8", VECTOR, shape=(3, 32, 32)) == {"hint": "features"}


def test_a_map_meets_the_last_map():
    # The ReLU behind the second convolution; the third stage, before it is pooled.
    assert _paths("cnn-small", MAP) == {"hint": "features.3"}
    assert _paths("resnet8", MAP, shape=(3, 32, 32)) == {"hint": "features.layer3"}


def test_looking_for_the_map_leaves_the_student_as_it_is():
    spec = NetworkSpec("resnet8", (3, 32, 32), 10)
    student = build(spec).train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    student_paths(student, spec, MAP, {})
    assert student.training
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert not any(module._forward_hooks for module in student.modules())


def test_a_given_path_is_taken():
    assert _paths("cnn-small", VECTOR, {"hint": "features.4"}) == {"hint": "features.4"}


def test_other_taps_need_no_path():
    opinions = {"probabilities": AnswerTap("probabilities", "probabilities", (10,))}
    assert _paths("cnn-small", {**opinions, **VECTOR}) == {"hint": "features"}
    assert _paths("cnn-small", opinions) == {}


def test_a_student_without_maps_cannot_imitate_one():
    with pytest.raises(UserError, match="no module that puts out a map"):
        _paths("mlp-small", MAP)


def test_an_unknown_hint_is_named():
    with pytest.raises(UserError, match="answers no hint 'sound'; it answers hint"):
        _paths("cnn-small", VECTOR, {"sound": "features"})
