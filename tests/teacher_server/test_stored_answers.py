"""A stored answer is of one sample, one teacher and one set of settings, and of nothing else."""

import uuid
from dataclasses import replace

import numpy as np
import pytest

from privacy.ledger import Ledger
from privacy.noise import DEFAULT_NOISE, source
from teacher_server.answering import Answer, Answerer
from teacher_server.menu import ServedTap
from tests.teacher_server.running_service import CHARGE, MENU, StandInTeacher, images

VERSION = "0" * 32
SAMPLES = images(4)


def asked(
    ledger: Ledger, version: str = VERSION, menu: tuple[ServedTap, ...] = MENU
) -> dict[str, np.ndarray]:
    """The answers to SAMPLES, asked under a request id of their own."""
    answerer = Answerer(StandInTeacher(), version, menu, ledger, source(DEFAULT_NOISE))
    answer: Answer = answerer.answer("anna", str(uuid.uuid4()), SAMPLES)
    return answer.taps


def equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> set[str]:
    """The taps that were answered alike, bit for bit. Two fresh draws of a tap are so by chance
    under (2⁻²¹)⁸: of eight values and more, each is with one under 1/(2σ√π)."""
    return {name for name in first if first[name].tobytes() == second[name].tobytes()}


def test_the_same_teacher_and_settings_find_what_is_stored(ledger):
    assert equal(asked(ledger), asked(ledger)) == {"probabilities", "hint"}
    assert ledger.budget(None).spent == 4 * CHARGE


def test_a_new_teacher_answers_anew(ledger):
    assert equal(asked(ledger), asked(ledger, version="1" * 32)) == set()
    assert ledger.budget(None).spent == 8 * CHARGE


@pytest.mark.parametrize("change", [{"bound": 0.5}, {"radius": 2**14}, {"kind": "logits"}])
def test_a_changed_tap_is_answered_anew(ledger, change):
    """And a tap that is as it was is not."""
    probabilities, hint = MENU
    changed = replace(hint, release=replace(hint.release, **change))
    assert equal(asked(ledger), asked(ledger, menu=(probabilities, changed))) == {"probabilities"}
    assert ledger.budget(None).spent == 4 * (CHARGE + changed.release.charge)
