"""The attacks on a set of worlds: who asks what of the service, of one teacher, and of a student.

Each of a world's k targets is an experiment of its own, with a ledger's whole budget spent on it:
worlds are shared by k attackers only to save their training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.membership_statistics import known_means
from benchmarks.membership_students import student_confidence
from benchmarks.membership_worlds import (
    CLASSES,
    Setting,
    World,
    Worlds,
    contrasted,
    outsider,
    poisoner,
    scores,
)
from ktan.data import Dataset
from privacy import noise
from privacy.accounting import mu_of_units
from privacy.audit.membership.trade_off import Claim
from privacy.budget import BudgetPlan, open_plan
from privacy.calibration import radii
from privacy.release import TapRelease, aggregate, perturb, release

EPSILONS = (1.0, 4.0, 8.0)
DELTA = 1e-5
REPEATS = 10
"""Fresh noise of the same teachers, for the attacker from whom noise alone hides anything."""

Pair = tuple[np.ndarray, np.ndarray]
"""Scores of members and of others."""

Group = tuple[str, Claim, dict[str, Pair]]
"""What is attacked, what is claimed of it, and attack → scores."""


def settings_for(epsilon: float, answers: int, teachers: int) -> tuple[TapRelease, Claim]:
    """The release of `answers` answers that a ledger with this ε would allow, and its claim."""
    source = noise.source(noise.DEFAULT_NOISE)
    plan: BudgetPlan = open_plan(
        epsilon, DELTA, draws=answers * CLASSES, closeness=source.closeness
    )
    radius = radii(
        plan.answer_units, answers, {"probabilities": 1.0}, {"probabilities": "probabilities"}
    )["probabilities"]
    tap = TapRelease("probabilities", "probabilities", CLASSES, 1.0, radius, teachers)
    return tap, Claim(epsilon, DELTA, mu_of_units(plan.answer_units))


def answered(tap: TapRelease | None, rows: np.ndarray) -> np.ndarray:
    """[k, T, q, 10] through the release pipeline to [T, q, 10]; without a tap, the bare mean."""
    if tap is None:
        return np.asarray(rows.mean(axis=0), dtype=np.float64)
    flat = rows.reshape(len(rows), -1, rows.shape[-1])
    noisy = release(tap, flat, noise.source(noise.DEFAULT_NOISE))
    return np.asarray(noisy.reshape(rows.shape[1:]), dtype=np.float64)


def answered_often(tap: TapRelease, rows: np.ndarray, times: int) -> Iterator[np.ndarray]:
    """The same with fresh noise each time, from one bounded and quantised sum."""
    total = aggregate(tap, rows.reshape(len(rows), -1, rows.shape[-1]))
    source = noise.source(noise.DEFAULT_NOISE)
    for _ in range(times):
        yield np.asarray(perturb(tap, total, source).reshape(rows.shape[1:]), dtype=np.float64)


def parted(found: np.ndarray, coins: np.ndarray) -> Pair:
    """Scores of members and of others."""
    return found[coins], found[~coins]


class Game:
    """Every attack on one set of worlds."""

    def __init__(self, worlds: Worlds, shadows: list[World], trials: list[World]) -> None:
        self.targets, self.setting = worlds.targets, worlds.setting
        self.shadows, self.trials = shadows, trials
        self.m = self.targets.mislabelled
        self.typical = np.setdiff1d(np.arange(self.setting.teachers), self.m)
        self.coins = np.array([world.coins for world in trials])

    def against_service(self, tap: TapRelease | None) -> dict[str, Pair]:
        """Attack → scores, at one release setting."""
        k, noise_sd = self.setting.teachers, 0.0 if tap is None else tap.noise_sd
        observed = np.array([answered(tap, world.clean) for world in self.trials])
        seen = contrasted(observed, self.targets.contrast())
        found: dict[str, Pair] = {}
        for asked, queries in (("the target itself", 1), ("near it", self.setting.queries)):
            shadow, coins = outsider(self.shadows, self.targets, queries)
            ratio = scores(shadow, coins, seen[..., :queries], noise_sd)
            for kind, part in (("typical", self.typical), ("mislabelled", self.m)):
                name = f"outsider, {kind} target, asks {asked}"
                found[name] = parted(ratio[:, part], self.coins[:, part])
        inside = self.coins[:, self.m]
        rows = [w.poisoned(self.m, side) for w, side in zip(self.trials, inside, strict=True)]
        shadow, coins = poisoner(self.shadows, self.targets, self.setting.queries)
        observed = np.array([answered(tap, row) for row in rows])
        seen = contrasted(observed, self.targets.contrast()[self.m])
        ratio = scores(shadow, coins, seen, noise_sd)
        found["poisoner, asks near the target"] = parted(ratio, inside)
        if tap is not None:
            members, others = [], []
            for world, side, row in zip(self.trials, inside, rows, strict=True):
                # What the attacker computes: everybody else's answers, and both of the target's.
                own = np.where(side[:, None, None], world.poisoned_in, world.poisoned_out)
                rest = row.sum(axis=0) - own
                known_in, known_out = (
                    ((rest + said) / k).reshape(len(side), -1)
                    for said in (world.poisoned_in, world.poisoned_out)
                )
                for fresh in answered_often(tap, row, REPEATS):
                    flat = fresh.reshape(len(side), -1)
                    ratio = known_means(flat, known_in, known_out, noise_sd)
                    members.append(ratio[side])
                    others.append(ratio[~side])
            name = "knows all but one, poisoned, asks near the target"
            found[name] = np.concatenate(members), np.concatenate(others)
        return found

    def against_one_teacher(self) -> dict[str, Pair]:
        """An overfitted single teacher without noise: each target's own one."""
        shadow = contrasted(np.array([w.own for w in self.shadows]), self.targets.contrast())
        seen = contrasted(np.array([w.own for w in self.trials]), self.targets.contrast())
        coins = np.array([world.coins for world in self.shadows])
        ratio = scores(shadow[..., :1], coins, seen[..., :1], 0.0)
        return {
            f"outsider, {kind} target, asks the target itself": parted(
                ratio[:, part], self.coins[:, part]
            )
            for kind, part in (("typical", self.typical), ("mislabelled", self.m))
        }

    def against_students(
        self, worlds: Worlds, tap: TapRelease | None, count: int
    ) -> dict[str, Pair]:
        """A student of `public` answers in each world, asked about the targets."""
        played = [*self.shadows, *self.trials[:count]]
        said = np.array(
            [
                student_confidence(
                    worlds, answered(tap, world.public[:, None])[0], 0.0 if tap is None
                    else tap.noise_sd, seed,
                )
                for seed, world in enumerate(played)
            ]
        )  # fmt: skip
        shadow, seen = said[: len(self.shadows), :, None], said[len(self.shadows) :, :, None]
        ratio = scores(shadow, np.array([w.coins for w in self.shadows]), seen, 0.0)
        coins = self.coins[:count]
        return {
            f"the student's {kind} target": parted(ratio[:, part], coins[:, part])
            for kind, part in (("typical", self.typical), ("mislabelled", self.m))
        }


def play(
    dataset: Dataset, setting: Setting, shadows: int, trials: int, students: int,
    say: Callable[[str], None],
) -> tuple[list[Group], dict[str, float]]:  # fmt: skip
    """Groups of attacks under a claim, and what the teachers are like."""
    worlds = Worlds(dataset, setting)
    shadow_worlds = worlds.shadow_worlds(shadows)
    say(f"{shadows} shadow worlds trained")
    worlds.choose_queries(shadow_worlds)
    shadow_worlds = [worlds.restrict(world) for world in shadow_worlds]
    trial_worlds = [worlds.world(shadows + number) for number in range(trials)]
    say(f"{trials} worlds to attack trained")
    game = Game(worlds, shadow_worlds, trial_worlds)
    groups = []
    for epsilon in EPSILONS:
        tap, claim = settings_for(epsilon, setting.queries, setting.teachers)
        groups.append((f"service, ε = {epsilon:g}", claim, game.against_service(tap)))
        say(f"attacked at ε = {epsilon:g}")
    claim = settings_for(EPSILONS[0], setting.queries, setting.teachers)[1]
    groups.append(("service WITHOUT noise", claim, game.against_service(None)))
    groups.append(("one teacher WITHOUT noise", claim, game.against_one_teacher()))
    if students:
        tap, own = settings_for(EPSILONS[-1], setting.public, setting.teachers)
        name = f"student, ε = {EPSILONS[-1]:g}"
        groups.append((name, own, game.against_students(worlds, tap, students)))
        groups.append(
            ("student WITHOUT noise", claim, game.against_students(worlds, None, students))
        )
        say(f"{2 * (students + shadows)} students trained and attacked")
    moved = np.array([w.poisoned_in - w.poisoned_out for w in trial_worlds])
    labels = worlds.public_labels.numpy()
    facts = {
        "influence_of_a_poisoned_target": float(np.linalg.norm(moved, axis=3).mean()),
        "largest_possible_influence": float(np.sqrt(2.0)),
        "teachers_together_accuracy": float(
            np.mean([w.public.mean(axis=0).argmax(axis=1) == labels for w in trial_worlds])
        ),
    }
    return groups, facts
