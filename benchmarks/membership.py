"""Membership inference against the service, a student, and a DP-SGD teacher, beside the caps.

    python -m benchmarks.membership [--data glyphs|mnist] [--data-root data] [--worlds 200]

Benchmark on public data only: everything here trains, without noise too, on digits that anybody
has. Attackers: an *outsider* knows the population and trains shadow ensembles; a *poisoner* also
wrote every other record of the target's shard; *knows all but one* also knows every other record,
which is the attacker of the promise. Queries: the target itself, or the whole budget on the
near-duplicates of it that it moves most.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.membership_canaries import canary_audit
from benchmarks.membership_students import student_confidence
from benchmarks.membership_worlds import (
    CLASSES,
    Setting,
    World,
    Worlds,
    contrasted,
    halved,
    outsider,
    poisoner,
    scores,
)
from ktan.data import Dataset, DataSource
from privacy import noise
from privacy.accounting import mu_of_units
from privacy.audit.membership.likelihood_ratio import known_means
from privacy.audit.membership.trade_off import Claim
from privacy.audit.membership.verdict import Row, judge, rows_text
from privacy.budget import BudgetPlan, open_plan
from privacy.calibration import radii
from privacy.release import TapRelease, release

RESULT = Path(__file__).parent / "results" / "membership.json"
LABEL = "benchmark on public data only"
EPSILONS = (1.0, 4.0, 8.0)
DELTA = 1e-5
REPEATS = 10
"""Fresh noise of the same teachers, for the attacker from whom noise alone hides anything."""

Pair = tuple[np.ndarray, np.ndarray]


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
    k, targets, queries, classes = rows.shape
    if tap is None:
        return np.asarray(rows.mean(axis=0), dtype=np.float64)
    flat = rows.reshape(k, targets * queries, classes)
    noisy = release(tap, flat, noise.source(noise.DEFAULT_NOISE))
    return np.asarray(noisy.reshape(targets, queries, classes), dtype=np.float64)


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
                for _ in range(REPEATS):
                    flat = answered(tap, row).reshape(len(side), -1)
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
) -> tuple[list[tuple[str, Claim, dict[str, Pair]]], dict[str, float]]:  # fmt: skip
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


def draw(groups: list[tuple[str, Claim, dict[str, Pair]]], path: Path) -> None:
    """ROC curves on logarithmic axes, a panel an ε, with the caps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rates = np.geomspace(2e-4, 1.0, 200)
    protected = [group for group in groups if group[0].startswith("service, ")]
    bare = dict(next(attacks for name, _, attacks in groups if name.startswith("one teacher")))
    figure, axes = plt.subplots(1, len(protected), figsize=(14, 5), sharey=True)
    for panel, (title, claim, attacks) in zip(axes, protected, strict=True):
        for number, (name, (members, others)) in enumerate(attacks.items()):
            curve = _curve(members, others, rates)
            panel.plot(rates, curve, color=f"C{number}", label=name, linewidth=1.2)
        members, others = bare["outsider, mislabelled target, asks the target itself"]
        panel.plot(rates, _curve(members, others, rates), "r:", label="one teacher WITHOUT noise")
        panel.plot(rates, claim.cap(rates), "k-", linewidth=2.0, label="cap of the claim")
        panel.plot(rates, rates, color="0.7", linestyle="--", label="guessing")
        panel.set(xscale="log", yscale="log", xlim=(5e-4, 1), ylim=(5e-4, 1.1), title=title)
        panel.set_xlabel("false-positive rate")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("true-positive rate")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.suptitle(f"Membership inference beside what the claimed ε allows ({LABEL})")
    figure.legend(handles, labels, loc="lower center", ncol=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(path, dpi=110)


def _curve(members: np.ndarray, others: np.ndarray, rates: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)[::-1]
    places = np.minimum((rates * len(others)).astype(int), len(others) - 1)
    curve = np.array([(members > ordered[place]).mean() for place in places])
    # Below one false positive there is nothing to see.
    return np.where(rates * len(others) >= 1.0, curve, np.nan)


def table_of(groups: list[tuple[str, Claim, dict[str, Pair]]]) -> dict[str, list[Row]]:
    """Rows by group; all of them are judged together."""
    comparisons = sum(len(attacks) for _, _, attacks in groups)
    return {
        title: [
            row
            for name, (members, others) in attacks.items()
            for row in judge(name, members, others, claim, comparisons=comparisons)
        ]
        for title, claim, attacks in groups
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("glyphs", "mnist"), default="glyphs")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--shadows", type=int, default=40)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--students", type=int, default=100)
    parser.add_argument("--canaries", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    root = options.data_root.expanduser()
    dataset = DataSource(options.data, root, size=options.records).load()
    dataset = halved(dataset)
    setting = Setting()
    groups, facts = play(dataset, setting, options.shadows, options.worlds, options.students, say)
    content: dict[str, Any] = {
        "note": LABEL,
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.membership " + " ".join(sys.argv[1:]),
        "options": {key: str(value) for key, value in vars(options).items()},
        "setting": asdict(setting),
        "noise": noise.DEFAULT_NOISE,
        "delta": DELTA,
        "teachers": facts,
        "attacks": {},
    }
    print(f"Membership inference: {LABEL}\n")
    for title, rows in table_of(groups).items():
        print(title, *rows_text(rows), "", sep="\n")
        content["attacks"][title] = [row.to_json() for row in rows]
    canaries = canary_audit(dataset, options.canaries, say)
    content["canaries"] = [result.to_json() for result in canaries]
    print("DP-SGD, one run with canaries", *(result.line() for result in canaries), sep="\n")
    content["seconds"] = round(time.perf_counter() - started)
    draw(groups, options.out.with_suffix(".png"))
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\nfigures: {options.out}\npicture: {options.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
