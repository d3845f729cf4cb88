"""The card says what is public, survives a round trip, and refuses nonsense."""

import json

import pytest

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec
from ktan.taps import Tap
from ktan.teachers import CardTap, TeacherCard, TrainingPrivacy

PRIVACY = TrainingPrivacy(
    epsilon=2.9,
    delta=1e-5,
    adjacency="replace-one",
    accountant="dp-accounting PLD",
    epsilon_add_remove=1.7,
    accountant_add_remove="Opacus PRV",
    sample_rate=0.02,
    noise_multiplier=1.5,
    steps=600,
    max_grad_norm=1.0,
)


def make_card(**changes):
    values = {
        "mode": "ensemble",
        "teachers": 5,
        "dataset": "fake",
        "dataset_id": "fake/10-classes-abc",
        "classes": tuple("0123456789"),
        "input_shape": (1, 28, 28),
        "input_dtype": "uint8",
        "normalisation": Normalisation((127.5,), (73.6,)),
        "network": NetworkSpec("cnn-small", (1, 28, 28), 10, {"width": 32}),
        "taps": (
            CardTap(
                Tap("probabilities", "probabilities", temperature=3.0, shape=(10,)), 1.0, "sum"
            ),
            CardTap(Tap("hint", "hint", path="features", dimensions=4, shape=(4,)), 2.5, "public"),
        ),
        "ledger_id": "ab" * 16,
        "split": {"recipe": {"seed": 0}, "counts": {"private": 600}},
        "unit": "record",
        "training": {"epochs": 2},
    }
    return TeacherCard(**{**values, **changes})


@pytest.mark.parametrize(
    "card",
    [make_card(), make_card(mode="dp-sgd", teachers=1, training_privacy=PRIVACY)],
    ids=["ensemble", "dp-sgd"],
)
def test_json_brings_every_field_back(card):
    assert TeacherCard.from_json(json.loads(json.dumps(card.to_json()))) == card


def test_versions_are_random_and_128_bits_long():
    versions = {make_card().version for _ in range(50)}
    assert len(versions) == 50
    assert all(len(bytes.fromhex(version)) == 16 for version in versions)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "federated"},
        {"mode": "single"},  # with five teachers
        {"teachers": 0},
        {"input_dtype": "int8"},
        {"taps": ()},
        {"training_privacy": PRIVACY},  # only dp-sgd has any
        {"mode": "dp-sgd", "teachers": 1},  # and must state it
    ],
)
def test_contradictions_are_refused(wrong):
    with pytest.raises(ValueError):  # noqa: PT011
        make_card(**wrong)


def test_a_tap_without_shape_or_with_a_bound_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="shape"):
        CardTap(Tap("logits", "logits"), 1.0, "public")
    with pytest.raises(ValueError, match="bound"):
        CardTap(Tap("logits", "logits", shape=(10,)), float("nan"), "public")


def test_reading_names_the_missing_and_the_damaged_card(tmp_path):
    with pytest.raises(UserError, match="holds no teacher"):
        TeacherCard.read(tmp_path)
    (tmp_path / "card.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="not a teacher's card"):
        TeacherCard.read(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({**make_card().to_json(), "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        TeacherCard.read(tmp_path)
