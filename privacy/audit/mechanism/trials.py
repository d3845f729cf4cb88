"""Asks both worlds the worst questions, and counts how often one is taken for the other.

A trial composes n samples, all taps of each. Its score is the log-likelihood ratio of the two known
Gaussians, Σ ⟨answer − middle, mean₀ − mean₁⟩/sd², which no test beats (Neyman & Pearson 1933); its
threshold is 0, the middle between the known means, fixed before anything is asked.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from privacy.accounting import SIGMA, mu_of_units
from privacy.audit.mechanism.cases import Array, AuditedTap, Case, Samples, known_means, samples
from privacy.audit.mechanism.service import Asked, AuditFailed, Service
from privacy.audit.mechanism.statistics import Mistakes

_Result = TypeVar("_Result")

_VALUES_KEPT: Final = 2**22
"""Values of an answer that are kept a world for the checks on the noise."""


@dataclass(frozen=True)
class Trials:
    """How one case went.

    per_trial: samples a trial. claim: μ of one trial, by the integer charges of the receipts.
    distance: μ between the known means; the claim, but where a case is less than the worst.
    """

    per_trial: int
    claim: float
    distance: float
    mistakes: Mistakes


@dataclass(frozen=True)
class Transcript:
    """Everything that is kept of one world, sample by sample in the order of asking.

    scores: [n, taps], log-likelihood ratios. squared: [n, taps], squared distances of the known
    means. residuals: tap → [at most n, m] in claimed standard deviations, from the first sample on.
    charge: units that the receipts name. charged_samples: that the service says it charged.
    """

    scores: Array
    squared: Array
    residuals: dict[str, Array]
    charge: int
    charged_samples: int


@dataclass(frozen=True)
class Played:
    """Two transcripts of `trials` trials; in each, the samples of a trial lie side by side."""

    worlds: tuple[Transcript, Transcript]
    trials: int

    def together(self) -> Trials:
        """All taps of an answer, as the service charges them."""
        return self._trials(self.trials, self._claimed(), slice(None))

    def of_tap(self, place: int, taps: tuple[AuditedTap, ...], target: float) -> Trials | None:
        """One tap alone, in new trials of about μ = `target`; None where there are not two."""
        charge = taps[place].charge
        trials = len(self.worlds[0].scores) // _composed(charge, target)
        if trials < 2:
            return None
        share = charge / sum(tap.charge for tap in taps)
        per_sample = self._claimed() * share
        return self._trials(trials, per_sample, slice(place, place + 1))

    def _claimed(self) -> float:
        """Units a sample, by the receipts of the world that was charged less."""
        return min(world.charge / len(world.scores) for world in self.worlds)

    def _trials(self, trials: int, units: float, columns: slice) -> Trials:
        per_trial = len(self.worlds[0].scores) // trials
        used = trials * per_trial
        sums = [
            world.scores[:used, columns].sum(axis=1).reshape(trials, per_trial).sum(axis=1)
            for world in self.worlds
        ]
        squared = self.worlds[0].squared[:used, columns].sum() / trials
        # World 0 is where the score is large.
        mistakes = Mistakes(trials, int((sums[1] > 0).sum()), int((sums[0] <= 0).sum()))
        claim = math.sqrt(units * per_trial) / SIGMA
        return Trials(per_trial, claim, math.sqrt(squared), mistakes)


class Serials:
    """Serial numbers that were never used: no sample is asked twice unless it is meant to be."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> npt.NDArray[np.int64]:
        """`count` new numbers, the first of them even."""
        first = self._next
        self._next += count + count % 2
        return np.arange(first, first + count, dtype=np.int64)


class Stage:
    """Both worlds, and the serial numbers that are left. `advance` is told of answered samples."""

    def __init__(self, worlds: tuple[Service, Service], advance: Callable[[int], None]):
        self.worlds = worlds
        self._advance = advance
        self.taps = worlds[0].taps
        self.batch = worlds[0].batch
        self._serials = Serials()
        if worlds[1].taps != self.taps:
            raise AuditFailed("the two worlds publish different taps: their start differs")
        if any(tap.charge == 0 for tap in self.taps):
            raise AuditFailed("the service charges nothing for a tap: there is no claim to measure")

    def per_trial(self, target: float) -> int:
        """Samples whose charges compose to about μ = `target`; at least 1."""
        return _composed(self.worlds[0].charge, target)

    def new_samples(self, case: Case, count: int) -> Samples:
        """Samples of one case, never asked before; the axis changes with every request."""
        serial = self._serials.take(count)
        return samples(case, serial // self.batch % 2**16, serial)

    def play(self, case: Case, trials: int, target: float) -> Played:
        """Questions that are fixed beforehand: the same in both worlds."""
        asked = self.new_samples(case, trials * self.per_trial(target))

        def one(world: Service) -> Transcript:
            notes = _Notes(self.taps, world.world)
            for part, got in world.ask_each(asked):
                notes.add(part, got)
                self._advance(len(part))
            return notes.transcript()

        return Played(self.both(one), trials)

    def play_adaptively(self, trials: int, target: float) -> Played:
        """Each trial chooses every question from all the noisy answers that it had before.

        It asks along the value in which its evidence is largest so far, by a case that depends on
        low bits of it: what leaks more once something has leaked, or noise that follows the
        question, adds up here (Chadha et al. 2024). A filter promises that this is no worse than
        fixed questions.
        """
        rounds = self.per_trial(target)
        widest = max(self.taps, key=lambda tap: tap.dimension)
        cases = np.array([Case.AXIS, Case.SPREAD, Case.HUGE, Case.ALTERNATING])
        serials = self._serials.take(trials * rounds).reshape(rounds, trials)

        def one(world: Service) -> Transcript:
            notes = _Notes(self.taps, world.world)
            evidence = np.zeros((trials, widest.dimension))
            for serial in serials:
                low = np.floor(np.abs(evidence[:, 0]) / widest.charged_sd * 1024.0).astype(int)
                axis = np.abs(evidence).argmax(axis=1)
                asked = samples(cases[low % len(cases)], axis, serial)
                got = world.ask(asked)
                evidence += got.answers[widest.name]
                notes.add(asked, got)
                self._advance(trials)
            # A trial's answers lie a round apart.
            order = np.arange(rounds * trials).reshape(rounds, trials).T.reshape(-1)
            return notes.transcript(order)

        return Played(self.both(one), trials)

    def both(self, work: Callable[[Service], _Result]) -> tuple[_Result, _Result]:
        """`work` on both worlds at once."""
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(work, self.worlds)
        return first, second


class _Notes:
    """Takes answers down as they come, and keeps no more of them than the checks need."""

    def __init__(self, taps: tuple[AuditedTap, ...], world: int):
        self._taps = taps
        self._world = world
        self._scores: list[Array] = []
        self._squared: list[Array] = []
        self._residuals: dict[str, list[Array]] = {tap.name: [] for tap in taps}
        self._kept = 0
        self._charge = 0
        self._charged_samples = 0

    def add(self, asked: Samples, got: Asked) -> None:
        self._charge += got.charge
        self._charged_samples += got.charged_samples
        scores, squared = [], []
        for tap in self._taps:
            sd = tap.charged_sd
            means = [known_means(tap, asked, world) / sd for world in (0, 1)]
            values = got.answers[tap.name].astype(np.float64) / sd
            apart = means[0] - means[1]
            scores.append(((values - (means[0] + means[1]) / 2.0) * apart).sum(axis=1))
            squared.append(np.square(apart).sum(axis=1))
            if self._kept < _VALUES_KEPT:
                self._residuals[tap.name].append(values - means[self._world])
        self._kept += len(asked) * sum(tap.dimension for tap in self._taps)
        self._scores.append(np.stack(scores, axis=1))
        self._squared.append(np.stack(squared, axis=1))

    def transcript(self, order: npt.NDArray[np.int64] | None = None) -> Transcript:
        """order: in which the samples of a trial lie side by side; that of asking when None."""
        scores, squared = np.concatenate(self._scores), np.concatenate(self._squared)
        if order is not None:
            scores, squared = scores[order], squared[order]
        residuals = {name: np.concatenate(parts) for name, parts in self._residuals.items()}
        return Transcript(scores, squared, residuals, self._charge, self._charged_samples)


def _composed(units: int, target: float) -> int:
    return max(1, round((target / mu_of_units(units)) ** 2))
