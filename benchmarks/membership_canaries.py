"""One-run audit of a DP-SGD teacher with canaries (Steinke, Nasr & Jagielski 2023).

The canaries are mislabelled benchmark digits, each put in by a fair coin before the service's own
training makes one teacher. One that is left out keeps its place without its label, which has no
gradient: so the public number of records, by which DP-SGD divides, tells nothing of the coins.
Scores come from the teacher's free answers. The control is a teacher whose card says the same, and
whose noise generator is broken on purpose.
"""

from __future__ import annotations

import hashlib
import hmac
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from ktan.data import Dataset, SplitRecipe, split
from ktan.teachers import TeacherModels
from privacy import composition
from privacy.audit.membership.one_run import OneRun, audit
from privacy.budget import open_plan
from privacy.composition import DpSgdRun
from privacy.promise import Adjacency
from privacy.release import TapRelease, release
from teacher_server.training import dp_sgd
from teacher_server.training.options import TeacherOptions
from teacher_server.training.secret_noise import SecretNoise
from teacher_server.training.train import Custody, train_teacher

DELTA = 1e-5
RATE, STEPS = 0.5, 200
HONEST = 200
"""Records beside the canaries."""


@dataclass(frozen=True)
class CanaryResult:
    """What one run showed beside what its card claims, both under add/remove."""

    teacher: str
    card_epsilon: float
    run: OneRun
    noise_multiplier: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "exceeds": self.run.exceeds(self.card_epsilon)}

    def line(self) -> str:
        """One line for a screen."""
        run = self.run
        verdict = "EXCEEDS the claim" if run.exceeds(self.card_epsilon) else "within"
        return (
            f"{self.teacher}: {run.right} of {run.guesses} guesses right on {run.canaries} "
            f"canaries: ε ≥ {run.epsilon:.3f} at {run.confidence:.0%}, the card claims "
            f"{self.card_epsilon:.3f} (add/remove, δ = {run.delta:g}): {verdict}"
        )


class FaintNoise(SecretNoise):
    """A planted fault: a thousandth of the noise that the card claims."""

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return super().normal(shape) * 1e-3


@contextmanager
def broken_noise() -> Iterator[None]:
    """Training inside draws FaintNoise."""
    with mock.patch.object(dp_sgd, "SecretNoise", FaintNoise):
        yield


def canary_audit(
    dataset: Dataset,
    canaries: int,
    say: Callable[[str], None],
    epsilons: tuple[float, ...] = (1.0, 8.0),
) -> list[CanaryResult]:
    """A teacher at each claimed add/remove ε, and the broken one at the first."""
    results = []
    for epsilon, broken in [(e, False) for e in epsilons] + [(epsilons[0], True)]:
        sigma = composition.noise_multiplier(epsilon, DELTA, RATE, STEPS, Adjacency.ADD_REMOVE)
        run = DpSgdRun(RATE, sigma, STEPS)
        if broken:
            with broken_noise():
                results.append(one_teacher(dataset, canaries, run, "broken noise"))
        else:
            results.append(one_teacher(dataset, canaries, run, f"dp-sgd at ε = {epsilon:g}"))
        say(results[-1].line())
    return results


def one_teacher(
    dataset: Dataset,
    canaries: int,
    run: DpSgdRun,
    name: str,
    *,
    honest_records: int = HONEST,
    confidence: float = 0.95,
) -> CanaryResult:
    """Flips the coins, trains once, asks, guesses a fifth of the coins from either end."""
    draw = np.random.default_rng(97)
    images, true = dataset.samples[:canaries], dataset.labels[:canaries].numpy()
    wrong = torch.from_numpy((true + draw.integers(1, 10, canaries)) % 10)
    included = np.random.default_rng().random(canaries) < 0.5
    told = torch.where(torch.from_numpy(included), wrong, -1)
    honest = slice(canaries, canaries + honest_records)
    samples = torch.cat([images, dataset.samples[honest]])
    labels = torch.cat([told, dataset.labels[honest]])
    private = Dataset(
        name="canaries",
        classes=dataset.classes,
        samples=samples,
        labels=labels,
        unit_ids=np.arange(len(samples)),
        holdout=torch.zeros(len(samples), dtype=torch.bool),
        location=dataset.location,
    )
    parts = split(private, SplitRecipe(labelled=0, unlabelled=0, test=0))
    plan = open_plan(64.0, DELTA, draws=0, training=[run])
    custody = Custody("0" * 32, plan, run, lambda _version, _weights: None, _mac)
    options = TeacherOptions(
        mode="dp-sgd", network="mlp-small", network_set=("hidden=[64]",), start="random",
        reference_steps=0, learning_rate=1.0, max_grad_norm=1.0, device="cpu",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "teacher"
        card = train_teacher(private, parts, options, out, custody, progress=False)
        models = TeacherModels.load(out, "cpu")
        said = models.answers(images)["probabilities"].numpy()
    answers = release(TapRelease.free("probabilities", "probabilities", 10), said, None)
    loss = -np.log(np.maximum(answers[np.arange(canaries), wrong.numpy()], 1e-30))
    if card.training_privacy is None:
        raise RuntimeError("a dp-sgd teacher states the privacy of its training")
    fifth = canaries // 5
    result = audit(
        -loss, included, positive=fifth, negative=fifth, delta=DELTA, confidence=confidence
    )
    return CanaryResult(
        name, card.training_privacy.epsilon_add_remove, result, run.noise_multiplier
    )


def _mac(parts: Iterable[bytes]) -> str:
    return hmac.digest(b"a throw-away key", b"".join(parts), hashlib.sha256).hex()
