"""Attacks on the real pipeline, small: what is protected stays under its cap, and what is not, not.

Training is seeded, so that "without noise" has one outcome. Noise is not: what is asserted of it
holds but for a chance of 1e-8 an attack and rate, which the interval's confidence sets.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import membership_attacks, membership_canaries
from benchmarks.membership_attacks import Game, settings_for
from benchmarks.membership_worlds import Setting, Worlds
from ktan.data import Dataset
from privacy import composition
from privacy.audit.membership.roc import RATES, operating_point
from privacy.composition import DpSgdRun
from privacy.promise import Adjacency

NEVER = 1.0 - 1e-8
SETTING = Setting(teachers=16, shard=8, steps=40, candidates=8, queries=4, public=10)


@pytest.fixture(scope="module")
def dataset():
    """Ten blurred patterns under heavy noise: learnt from few, memorised in no time."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 10, (2000,), generator=generator)
    pattern = 80.0 + 100.0 * torch.rand(10, 1, 14, 14, generator=generator)
    values = pattern[labels] + 45.0 * torch.randn(2000, 1, 14, 14, generator=generator)
    return Dataset(
        name="patterns",
        classes=tuple("0123456789"),
        samples=values.clamp(0, 255).to(torch.uint8),
        labels=labels,
        unit_ids=np.arange(2000),
        holdout=torch.zeros(2000, dtype=torch.bool),
        location=Path(),
    )


@pytest.fixture(scope="module")
def game(dataset):
    torch.set_num_threads(1)
    worlds = Worlds(dataset, SETTING)
    shadows = worlds.shadow_worlds(6)
    worlds.choose_queries(shadows)
    trials = [worlds.world(100 + number) for number in range(8)]
    return Game(worlds, [worlds.restrict(world) for world in shadows], trials)


def exceeding(attacks, claim, confidence=NEVER):
    """The attacks that refute the claim."""
    return {
        name
        for name, (members, others) in attacks.items()
        for rate in (*RATES, 0.1)
        if operating_point(members, others, rate, confidence).exceeds(claim)
    }


def test_no_attack_passes_the_cap_of_what_was_claimed(game) -> None:
    tap, claim = settings_for(4.0, SETTING.queries, SETTING.teachers)
    attacks = game.against_service(tap)
    assert len(attacks) == 6
    assert exceeding(attacks, claim) == set()


def test_too_little_noise_is_caught_by_who_knows_all_but_one(game, monkeypatch) -> None:
    """A thirtieth of the noise: for most targets both answers lie tens of deviations apart."""
    tap, claim = settings_for(4.0, SETTING.queries, SETTING.teachers)
    source = membership_attacks.noise.source

    class Faint:
        def __init__(self, name) -> None:
            self._source = source(name)

        def sample(self, count):
            return self._source.sample(count) // 30

    monkeypatch.setattr(membership_attacks.noise, "source", Faint)
    caught = exceeding(game.against_service(tap), claim)
    assert "knows all but one, poisoned, asks near the target" in caught


def test_an_overfitted_teacher_without_noise_is_caught_by_an_outsider(game) -> None:
    _, claim = settings_for(1.0, SETTING.queries, SETTING.teachers)
    caught = exceeding(game.against_one_teacher(), claim, 0.95)
    assert "outsider, mislabelled target, asks the target itself" in caught


def test_a_poisoned_target_moves_its_teacher_nearly_as_far_as_can_be(game) -> None:
    """Else staying under the cap would show nothing."""
    moved = [np.linalg.norm(w.poisoned_in - w.poisoned_out, axis=2).mean() for w in game.trials]
    assert np.mean(moved) > 0.8 * np.sqrt(2.0)


@pytest.mark.filterwarnings("ignore:Optimal order")
def test_canaries_catch_broken_dp_sgd_noise_and_nothing_else(dataset) -> None:
    """Claimed ε = 0.5. A sound run passes it with chance under 1e-8, the theorem says."""
    rate, steps = 0.5, 80
    sigma = composition.noise_multiplier(
        0.5, membership_canaries.DELTA, rate, steps, Adjacency.ADD_REMOVE
    )
    run = DpSgdRun(rate, sigma, steps)
    sound = membership_canaries.one_teacher(
        dataset, 150, run, "sound", honest_records=50, confidence=NEVER
    )
    assert 0.49 < sound.card_epsilon < 0.52
    assert not sound.run.exceeds(sound.card_epsilon)
    with membership_canaries.broken_noise():
        broken = membership_canaries.one_teacher(dataset, 150, run, "broken", honest_records=50)
    # 60 guesses; the claim falls from 45 right on, and nearly all are.
    assert broken.run.right >= 50
    assert broken.run.exceeds(broken.card_epsilon)
