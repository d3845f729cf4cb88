"""Worlds for membership inference: ensembles that have seen a target or not, and their answers.

A world is one ensemble of k teachers, trained by the service's own code on k disjoint shards of
benchmark data. Every shard has one target, whose unit holds the target's content (in) or another
record's (out, the replacement of the promise), by a fair coin. For mislabelled targets the world
also has two *poisoned* teachers, in and out: there the attacker has written every other record of
the shard, all under the target's true class, so that the target alone speaks against it; there,
"out" is the same image under its true class.
Teachers depend on nothing but their shard, so that a poisoned one may take its shard's place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from benchmarks.membership_statistics import matched, statistic
from ktan.data import Augment, Dataset, Normalisation
from ktan.networks import NetworkSpec
from ktan.taps import parse_tap
from ktan.teachers import CardTap, TeacherCard, TeacherModels
from ktan.teachers.stack import State, state_slice
from privacy.audit.membership.likelihood_ratio import fit
from teacher_server.training.ensemble import EnsembleRecipe, train_ensemble

CLASSES = 10
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """Sizes of the game; every one is written beside the figures."""

    teachers: int = 50
    shard: int = 16
    steps: int = 50
    hidden: int = 16
    batch: int = 16
    learning_rate: float = 1e-2
    candidates: int = 32
    queries: int = 16
    public: int = 100
    stack: int = 100
    seed: int = 7


@dataclass(frozen=True, eq=False)
class Targets:
    """One target a shard, T = k; the first half typical, the second half mislabelled."""

    samples: Tensor
    true: np.ndarray
    labels: np.ndarray
    candidates: Tensor
    """uint8 [T, C, 1, h, w]: queries near each target; the first is the target itself."""

    @property
    def mislabelled(self) -> np.ndarray:
        """Positions of the targets whose label is wrong."""
        return np.flatnonzero(self.labels != self.true)

    def contrast(self) -> np.ndarray:
        """float [T, 10] of norm 1: the direction in which a target pulls a teacher's answer."""
        toward = np.eye(CLASSES)[self.labels] - np.eye(CLASSES)[self.true]
        toward = np.where((self.labels == self.true)[:, None], np.eye(CLASSES)[self.labels], toward)
        direction: np.ndarray = toward / np.linalg.norm(toward, axis=1, keepdims=True)
        return direction


@dataclass(frozen=True, eq=False)
class World:
    """What k teachers say of the queries about T targets.

    coins: bool [T]. clean: float32 [k, T, q, 10]. poisoned: in and out, each [M, q, 10], of the
    poisoned teachers of the M mislabelled targets about their own queries. public: [k, p, 10].
    """

    coins: np.ndarray
    clean: np.ndarray
    poisoned_in: np.ndarray
    poisoned_out: np.ndarray
    public: np.ndarray

    @property
    def own(self) -> np.ndarray:
        """[T, q, 10]: each target's own teacher on that target's queries."""
        places = np.arange(self.clean.shape[1])
        return self.clean[places, places]

    def poisoned(self, mislabelled: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """[k, M, q, 10]: the k teachers with the poisoned one in its shard's place."""
        rows = self.clean[:, mislabelled].copy()
        own = np.where(inside[:, None, None], self.poisoned_in, self.poisoned_out)
        rows[mislabelled, np.arange(len(mislabelled))] = own
        return rows


class Worlds:
    """Trains worlds one by one; a world is a function of the setting and its number."""

    def __init__(self, dataset: Dataset, setting: Setting) -> None:
        self.setting = setting
        self._dataset = dataset
        k = setting.teachers
        self.public = dataset.samples[k : k + setting.public]
        self.public_labels = dataset.labels[k : k + setting.public]
        self.population = np.arange(k + setting.public, len(dataset))
        self.normalise = Normalisation.of_public(self.public)
        self.targets = self._make_targets()
        self.queries = self.targets.candidates

    @cached_property
    def spec(self) -> NetworkSpec:
        """The teachers' network."""
        shape = self._dataset.input_shape
        return NetworkSpec("mlp-small", shape, CLASSES, {"hidden": [self.setting.hidden]})

    def choose_queries(self, shadows: list[World]) -> None:
        """Keeps the queries that a target moves most: itself, then the best of those near it.

        Its own teacher's mean answer with it in against that with it out, over shadow worlds; of
        a mislabelled target that of the poisoned teachers.
        """
        coins = np.array([world.coins for world in shadows])
        own = np.array([world.own for world in shadows])
        inside, outside = (
            np.array([own[side[:, t], t].mean(axis=0) for t in range(own.shape[1])])
            for side in (coins, ~coins)
        )
        m = self.targets.mislabelled
        inside[m] = np.mean([world.poisoned_in for world in shadows], axis=0)
        outside[m] = np.mean([world.poisoned_out for world in shadows], axis=0)
        influence = np.linalg.norm(inside - outside, axis=2)
        influence[:, 0] = np.inf
        self.chosen = np.argsort(-influence, axis=1, kind="stable")[:, : self.setting.queries]
        candidates = self.targets.candidates
        self.queries = torch.stack(
            [candidates[t, torch.from_numpy(row)] for t, row in enumerate(self.chosen)]
        )

    def restrict(self, world: World) -> World:
        """A shadow world's answers to the chosen queries only."""
        places, rows = np.arange(len(self.chosen))[:, None], self.chosen
        m = self.targets.mislabelled
        return World(
            world.coins,
            world.clean[:, places, rows],
            world.poisoned_in[np.arange(len(m))[:, None], rows[m]],
            world.poisoned_out[np.arange(len(m))[:, None], rows[m]],
            world.public,
        )

    def shadow_worlds(self, count: int) -> list[World]:
        """`count` worlds, by twos with opposite coins, so that each target is in one half."""
        found = []
        for number in range(count // 2):
            first = self.world(2 * number)
            found += [first, self.world(2 * number + 1, ~first.coins)]
        return found

    def world(self, number: int, coins: np.ndarray | None = None) -> World:
        """Draws shards and coins, trains, and asks."""
        setting, targets = self.setting, self.targets
        k, size, m = setting.teachers, setting.shard, targets.mislabelled
        draw = np.random.default_rng((setting.seed, number))
        picked = draw.choice(self.population, k * size, replace=False)
        coins = draw.random(k) < 0.5 if coins is None else coins
        images, labels = self._dataset.samples[picked], self._dataset.labels[picked]
        samples = torch.cat([images, images, targets.samples, targets.samples])
        written = torch.from_numpy(np.repeat(targets.true, size))
        told = [torch.from_numpy(side) for side in (targets.labels, targets.true)]
        labels = torch.cat([labels, written, *told])
        # Rows: each shard's own records, the attacker's in their place, the targets as
        # they are, the targets under their true class.
        honest = np.arange(k * size).reshape(k, size)
        place = 2 * k * size + np.arange(k)
        shards = honest.copy()
        shards[coins, 0] = place[coins]
        inside, outside = k * size + honest[m], k * size + honest[m]
        inside[:, 0], outside[:, 0] = place[m], k + place[m]
        recipe = EnsembleRecipe(
            spec=self.spec,
            normalise=self.normalise,
            steps=setting.steps,
            batch=setting.batch,
            learning_rate=setting.learning_rate,
            optimiser="adam",
            weight_decay=0.0,
            augment=Augment("none"),
            precision="float32",
            seed=setting.seed * 1_000_003 + number,
            stack=setting.stack,
        )
        everyone = np.concatenate([shards, inside, outside])
        state = train_ensemble(samples, labels, list(everyone), recipe, device=CPU)
        asked = self.queries.flatten(0, 1)
        count = self.queries.shape[1]
        clean = self._answers(state, slice(0, k), torch.cat([asked, self.public]))
        about = clean[:, : len(asked)].reshape(k, k, count, CLASSES)
        own = self.queries[torch.from_numpy(m)].flatten(0, 1)
        poisoned = [
            self._answers(state, part, own).reshape(len(m), len(m), count, CLASSES)[
                np.arange(len(m)), np.arange(len(m))
            ]
            for part in (slice(k, k + len(m)), slice(k + len(m), None))
        ]
        return World(coins, about, poisoned[0], poisoned[1], clean[:, len(asked) :])

    def _answers(self, state: State, teachers: slice, samples: Tensor) -> np.ndarray:
        """[teachers, samples, 10] by the served code path, before bound and noise."""
        own = state_slice(state, teachers)
        count = len(next(iter(own.values())))
        card = TeacherCard(
            mode="ensemble",
            teachers=count,
            dataset=self._dataset.name,
            dataset_id=self._dataset.id,
            classes=self._dataset.classes,
            input_shape=self._dataset.input_shape,
            input_dtype="uint8",
            normalisation=self.normalise,
            network=self.spec,
            taps=(CardTap(parse_tap("probabilities").with_shape(CLASSES, {}), 1.0, "a simplex"),),
            ledger_id="a throw-away one",
            split={},
            unit="record",
        )
        return TeacherModels(card, own, {}, CPU).answers(samples)["probabilities"].numpy()

    def _make_targets(self) -> Targets:
        setting = self.setting
        k = setting.teachers
        draw = np.random.default_rng((setting.seed, 1 << 40))
        samples = self._dataset.samples[:k]
        true = self._dataset.labels[:k].numpy()
        labels = true.copy()
        wrong = np.arange(k // 2, k)
        labels[wrong] = (true[wrong] + draw.integers(1, CLASSES, len(wrong))) % CLASSES
        return Targets(samples, true, labels, _near(samples, setting.candidates, draw))


def halved(dataset: Dataset) -> Dataset:
    """The same images at half their side: means of 2 x 2 pixels."""
    means = torch.nn.functional.avg_pool2d(dataset.samples.float(), 2)
    return replace(dataset, samples=means.round().to(torch.uint8))


def _near(samples: Tensor, count: int, draw: np.random.Generator) -> Tensor:
    """uint8 [T, count, ...]: each sample itself, then it under pixel noise and contrast."""
    views = [samples]
    while len(views) < count:
        noise = draw.normal(0.0, draw.uniform(2.0, 30.0), samples.shape)
        values = samples.numpy() * draw.uniform(0.8, 1.6) + noise
        views.append(torch.from_numpy(values.clip(0.0, 255.0).round().astype(np.uint8)))
    return torch.stack(views, dim=1)


def outsider(shadows: list[World], targets: Targets, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Clean shadow answers [S, T, queries] along each target's contrast, and coins [S, T]."""
    clean = np.array([world.clean.mean(axis=0)[:, :queries] for world in shadows])
    return contrasted(clean, targets.contrast()), np.array([world.coins for world in shadows])


def poisoner(shadows: list[World], targets: Targets, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of poisoned shards, each shadow world once in and once out: [2 S, M, queries]."""
    m = targets.mislabelled
    answers, coins = [], []
    for world in shadows:
        for inside in (True, False):
            side = np.full(len(m), inside)
            answers.append(world.poisoned(m, side).mean(axis=0)[:, :queries])
            coins.append(side)
    return contrasted(np.array(answers), targets.contrast()[m]), np.array(coins)


def contrasted(answers: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Answers [..., T, q, 10] along [T, 10]: [..., T, q]. Noise keeps its deviation."""
    along: np.ndarray = np.einsum("...tqc,tc->...tq", answers, contrast)
    return along


def scores(
    shadow: np.ndarray, coins: np.ndarray, observed: np.ndarray, noise_sd: float
) -> np.ndarray:
    """LiRA's log ratio [E, T] of observed [E, T, q], from shadow [S, T, q] and coins [S, T]."""
    weights, carried = matched(shadow, coins, noise_sd)
    fitted = fit(statistic(shadow, weights), coins)
    return fitted.log_ratio(statistic(observed, weights), carried)
