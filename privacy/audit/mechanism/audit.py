"""The whole audit of a mechanism: every case, then the noise that was left over."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from privacy.audit.mechanism.cases import Case
from privacy.audit.mechanism.noise_checks import Check, check_noise
from privacy.audit.mechanism.noise_reuse import repeated_noise
from privacy.audit.mechanism.report import Audit, Judged
from privacy.audit.mechanism.service import Asked, AuditFailed, Service, running
from privacy.audit.mechanism.trials import Played, Stage, Trials

FEWER: Final = 25
"""The cases beside the main one are played this many times less often."""

MU_OF_OTHERS: Final = 2.0
"""μ that they are composed to: fewer trials say more there."""

_CASES: Final = (
    (Case.SPREAD, "spread", "the same L2 distance, spread over all values"),
    (Case.HUGE, "poisoned: 1e30", "the replaced shard answers ±1e30"),
    (Case.ALTERNATING, "poisoned: alternating", "the replaced shard changes sides by the sample"),
    (Case.NOT_A_NUMBER, "poisoned: NaN", "the replaced shard answers NaN in one world"),
    (Case.INFINITE, "poisoned: inf", "the replaced shard answers ±inf in one world"),
)
_AGAIN: Final = 64


@dataclass(frozen=True)
class Settings:
    """How much is asked, and how sure the answer is to be."""

    trials: int = 100_000
    """Trials a side of the worst case."""
    others: int | None = None
    """Trials a side of each other case; a 25th of --trials when not given, 0 leaves them out."""
    mu: float = 1.0
    """μ that a trial of the worst case composes to; those of the others to twice that."""
    confidence: float = 0.99
    """With which all lower bounds hold together."""
    check_alpha: float = 1e-8
    """Probability with which each check of the noise rejects the right one."""

    def check(self) -> None:
        """Raises AuditFailed for settings that no audit can have."""
        if self.trials < 100:
            raise AuditFailed(f"--trials {self.trials}: at least 100 say anything at all")
        if self.others is not None and self.others < 0:
            raise AuditFailed(f"--others {self.others} is below 0")
        if not 0.0 < self.check_alpha <= 0.05:
            raise AuditFailed(f"--check-alpha {self.check_alpha:g} must lie in (0, 0.05]")
        if not 0.0 < self.mu < math.inf:
            raise AuditFailed(f"--mu {self.mu:g} must be above 0")
        if not 0.5 <= self.confidence < 1.0:
            raise AuditFailed(f"--confidence {self.confidence:g} must lie in [0.5, 1)")


class Progress(Protocol):
    """Who watches: `advance` is called from two threads."""

    def begin(self, what: str, samples: int) -> None:
        """Another case begins, with so many samples in all; 0 where no samples are asked."""

    def advance(self, samples: int) -> None:
        """So many of them are answered."""


@dataclass(frozen=True)
class _Run:
    name: str
    what: str
    played: Played


def audit(
    command: str | None,
    options: list[str],
    settings: Settings,
    certs: Path | None,
    progress: Progress,
) -> Audit:
    """Starts both worlds, plays every case, and judges them. `progress` is told what is under way.

    command, options, certs: see `service.running`. Raises AuditFailed.
    """
    settings.check()
    began = time.monotonic()
    progress.begin("starting both services", 0)
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(running(command, options, world, certs)) for world in (0, 1)
        )
        stage = Stage((first, second), progress.advance)
        runs = list(_runs(stage, settings, progress))
        progress.begin("samples asked again", 2 * (4 + len(stage.taps)) * _AGAIN)
        again = [*_asked_again(stage), *_asked_apart(stage)]
    cases = list(_cases(runs, stage, settings))
    alpha = (1.0 - settings.confidence) / len(cases)
    return Audit(
        tuple(Judged(name, what, trials, alpha) for name, what, trials in cases),
        (*_charges(runs, stage), *again, *_noise(runs, stage, settings.check_alpha)),
        settings.confidence,
        settings.check_alpha,
        time.monotonic() - began,
        sum(len(world.scores) for run in runs for world in run.played.worlds),
    )


def _runs(stage: Stage, settings: Settings, progress: Progress) -> Iterator[_Run]:
    def begin(name: str, trials: int, mu: float) -> None:
        progress.begin(name, 2 * trials * stage.per_trial(mu))

    begin("worst case", settings.trials, settings.mu)
    main = stage.play(Case.AXIS, settings.trials, settings.mu)
    yield _Run("worst case", "±B along one value, opposite one-hot rows; every tap", main)
    fewer = settings.trials // FEWER if settings.others is None else settings.others
    if fewer == 0:
        return
    mu = MU_OF_OTHERS * settings.mu
    for case, name, what in _CASES:
        begin(name, fewer, mu)
        yield _Run(name, what, stage.play(case, fewer, mu))
    begin("adaptive", fewer, mu)
    what = "each question chosen from all earlier noisy answers"
    yield _Run("adaptive", what, stage.play_adaptively(fewer, mu))


def _cases(runs: list[_Run], stage: Stage, settings: Settings) -> Iterator[tuple[str, str, Trials]]:
    """Every run as a case; of the first one, each tap alone too, where there are several."""
    for place, run in enumerate(runs):
        yield run.name, run.what, run.played.together()
        if place == 0 and len(stage.taps) > 1:
            for column, tap in enumerate(stage.taps):
                alone = run.played.of_tap(column, stage.taps, settings.mu)
                if alone is not None:
                    yield f"worst case, {tap.name}", "the same answers, this tap alone", alone


def _noise(runs: list[_Run], stage: Stage, alpha: float) -> list[Check]:
    """Law and independence on the worst case, and reuse over everything."""
    # Half of α a world: of the two, the one that is nearer to its limit speaks.
    worlds = (
        check_noise(world.residuals, stage.batch, alpha / 2.0) for world in runs[0].played.worlds
    )
    checks = [
        max(pair, key=lambda check: check.figure / check.limit)
        for pair in zip(*worlds, strict=True)
    ]
    played = [world for run in runs for world in run.played.worlds]
    a_sample = sum(tap.dimension for tap in stage.taps)
    answered = a_sample * sum(len(world.scores) for world in played)
    again = repeated_noise([world.residuals for world in played], answered)
    return checks if again is None else [*checks, again]


def _charges(runs: list[_Run], stage: Stage) -> Iterator[Check]:
    """Do receipts and published numbers say the same of what an answer costs and of its noise?"""
    for tap in stage.taps:
        apart = abs(tap.noise_sd / tap.charged_sd - 1.0)
        yield Check(f"published noise of {tap.name}", apart, 1e-9, "from what its charge is for")
    published = stage.worlds[0].charge
    worlds = [world for run in runs for world in run.played.worlds]
    apart = sum(abs(world.charge - len(world.scores) * published) for world in worlds)
    yield Check("receipts against published charges", float(apart), 0.0, "units")
    uncharged = sum(len(world.scores) - world.charged_samples for world in worlds)
    yield Check("new samples that were not charged", float(uncharged), 0.0, "samples")


def _asked_again(stage: Stage) -> Iterator[Check]:
    """A sample asked again is the stored answer, free: nobody averages the noise away."""
    asked = stage.new_samples(Case.AXIS, _AGAIN)

    def twice(world: Service) -> npt.NDArray[np.int64]:
        first = world.ask(asked)
        # In another order, under other requests, and twice in one of them.
        second = world.ask(np.concatenate([asked[::-1], asked]))
        before = {
            name: np.concatenate([values[::-1], values]) for name, values in first.answers.items()
        }
        return np.array([_differ(before, second), second.charge, second.charged_samples])

    differ, charge, samples = np.add(*stage.both(twice))
    yield Check("answers that changed when asked again", float(differ), 0.0, "values")
    yield Check("charge for samples asked again", float(charge), 0.0, "units")
    yield Check("samples charged again", float(samples), 0.0, "samples")


def _asked_apart(stage: Stage) -> Iterator[Check]:
    """A tap asked alone costs what it costs, and is the stored answer whoever asks for it next."""
    asked = stage.new_samples(Case.AXIS, _AGAIN)

    def one_by_one(world: Service) -> npt.NDArray[np.int64]:
        alone = [world.ask(asked, (tap.name,)) for tap in world.taps]
        together = world.ask(asked)
        before = {name: values for part in alone for name, values in part.answers.items()}
        wrong = sum(
            abs(part.charge - len(asked) * tap.charge)
            for part, tap in zip(alone, world.taps, strict=True)
        )
        return np.array([_differ(before, together), wrong + together.charge])

    differ, charge = np.add(*stage.both(one_by_one))
    yield Check("answers that changed when asked tap by tap", float(differ), 0.0, "values")
    yield Check("receipts of taps asked one by one", float(charge), 0.0, "units from published")


def _differ(before: Mapping[str, npt.NDArray[np.float32]], after: Asked) -> int:
    """How many values are not bit for bit what they were."""
    return sum(int((values != before[name]).sum()) for name, values in after.answers.items())
