"""The auditor's own writing of the worst cases against the service's: one table, two authors."""

import numpy as np
import pytest

from privacy.audit.mechanism.cases import AuditedTap, Case, known_means, samples
from privacy.release import release
from teacher_server.rehearsal import cases as served
from teacher_server.rehearsal.likeness import public_teacher, rehearsed_menu
from teacher_server.rehearsal.options import RehearsalOptions
from teacher_server.rehearsal.teacher import SyntheticTeacher


class NoNoise:
    def sample(self, count):
        return np.zeros(count, dtype=np.int64)


def test_the_numbers_of_the_cases_are_the_same():
    assert {case.name: case.value for case in Case} == {
        case.name: case.value for case in served.Case
    }


@pytest.mark.parametrize("world", [0, 1])
@pytest.mark.parametrize("teachers", [1, 2, 7])
@pytest.mark.parametrize(
    "tap",
    [
        "hint:8:0.7",
        "hint:5:3",
        "logits:4:2",
        "logits:3:10",
        "probabilities:4",
        "tsl:4:1",
        "attention:16:1",
        "signs:9:3",
        "products.a:6:2",
    ],
)
def test_known_means_are_what_the_release_answers_without_noise(tap, teachers, world):
    radius = 2**18
    options = RehearsalOptions(tap=(tap,), teachers=teachers, radius=radius)
    public = public_teacher(options)
    (menu,) = rehearsed_menu(options, public, None)
    asked = samples(np.repeat(list(Case), 40), np.arange(280) * 7, np.arange(280) * 3 + 2**33)
    rows = SyntheticTeacher(public, world).answers(asked)[menu.name]
    answered = release(menu.release, rows, NoNoise())

    settings = menu.release
    known = AuditedTap(
        settings.name,
        settings.kind,
        settings.dimension,
        settings.bound,
        teachers,
        settings.charge,
        settings.noise_sd,
    )
    # Truncation takes up to one grid step off each teacher's value; float32 adds its own.
    step = settings.bound / radius
    np.testing.assert_allclose(known_means(known, asked, world), answered, rtol=1e-6, atol=step)
    assert known.charged_sd == pytest.approx(settings.noise_sd, rel=1e-12)


def test_samples_that_differ_in_anything_differ():
    rows = samples(np.repeat([1, 2], 6), np.tile([0, 300, 2], 4), np.repeat([0, 1, 2**40, 5], 3))
    assert len({row.tobytes() for row in rows}) == 12
