"""Options as a command line has them, and the network that suits samples."""

import pytest

from ktan.errors import UserError
from ktan.networks import parse_settings, suited


def test_settings_are_json_where_they_can_be() -> None:
    texts = ["width=32", "norm=group", "hidden=[9, 5]", "learning-rate=1e-3", "deep=true"]
    assert parse_settings("--set", texts) == {
        "width": 32,
        "norm": "group",
        "hidden": [9, 5],
        "learning_rate": 0.001,
        "deep": True,
    }


def test_a_part_keeps_its_name() -> None:
    found = parse_settings("--set", ["soft-logits.kd-weight=2.5", "kd-weight=1"])
    assert found == {"soft-logits.kd_weight": 2.5, "kd_weight": 1}


@pytest.mark.parametrize("text", ["width", "=3", "a part.=3", "3=4", "part.3=4"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--set wants NAME=VALUE"):
        parse_settings("--set", [text])


def test_a_name_is_given_once() -> None:
    with pytest.raises(UserError, match="--set gives kd_weight twice"):
        parse_settings("--set", ["kd-weight=1", "kd_weight=2"])


def test_networks_that_suit() -> None:
    shapes = [(12,), (1, 5, 5), (1, 28, 28), (3, 32, 32), (1, 64, 64)]
    assert [suited(shape) for shape in shapes] == [
        "mlp-small", "mlp-small", "cnn-small", "resnet20", "resnet20",
    ]  # fmt: skip
