"""What a method measures on the answers at hand it reads in parts; the loss is the same."""

from dataclasses import replace

import pytest
import torch

from ktan import parts
from ktan.data import Augment
from ktan.data_parts import Rows
from ktan.methods import Binding, Objective
from ktan.methods.combination import parse_method
from ktan.networks import build
from ktan.pairing import pair_taps
from ktan.training_data import BatchStream
from tests.ktan.methods.test_every_method import (
    CLASSES,
    IMAGES,
    NAMES,
    NORMALISE,
    SHAPE,
    STAGES,
    STUDENTS,
    taught_by,
    world,
)
from tests.ktan.only_rows import OnlyRows

NOBODY_ASKED = {"local", "byot", "fixmatch"}


def losses(name: str, objective: Objective) -> dict[str, torch.Tensor]:
    made = world(name)
    stream = BatchStream(
        replace(made.data, unlabelled=IMAGES if objective.unlabelled else None),
        labelled_batch=4, answered_batch=8, unlabelled_batch=4, seed=0,
        device=torch.device("cpu"), normalise=NORMALISE, augment=Augment("none"),
    )  # fmt: skip
    batch = stream.batch(0)
    view = objective.observe(made.student, batch)
    torch.manual_seed(5)
    return {
        f"{player}.{term}": loss.detach()
        for player in objective.players
        for term, loss in objective.losses(player, view, batch).items()
    }


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOBODY_ASKED))
def test_a_method_bound_to_rows_has_the_losses_of_one_bound_to_tensors(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = taught_by(name)
    at_hand = teacher.answer(IMAGES)
    largest = max(value[0].nbytes for value in at_hand.values())

    def bound(answers: dict[str, Rows]) -> Objective:
        torch.manual_seed(3)
        student = build(STUDENTS).to(memory_format=torch.channels_last)
        paths = pair_taps(teacher.taps, student, SHAPE, STAGES)
        return parse_method(name, {}).build(
            Binding(student, SHAPE, CLASSES, teacher.taps, paths, answers, STAGES, teacher.stages)
        )

    expected = losses(name, bound(dict(at_hand)))
    assert expected
    whole = {tap: OnlyRows(value, len(value)) for tap, value in at_hand.items()}
    for term, loss in losses(name, bound(dict(whole))).items():
        assert torch.equal(loss, expected[term]), term
    # Five samples at once where all taps are read together, more of a smaller one.
    monkeypatch.setattr(parts, "LIMIT", 5 * largest)
    few = {tap: OnlyRows(value, 5 * largest // value[0].nbytes) for tap, value in at_hand.items()}
    for term, loss in losses(name, bound(dict(few))).items():
        torch.testing.assert_close(loss, expected[term], rtol=1e-5, atol=1e-6)
