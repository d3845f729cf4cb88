"""From what public-only teachers say to what a release of it is worth.

Answers of the trained teachers are computed once; every combination of the grid then goes through
the service's own functions: calibration, bound, quantise, integer sum, integer noise. The noise
alone is drawn from a seeded generator, so that a forecast can be repeated and rows of a grid
differ by their settings and not by their draws; nothing that is released comes from here.

A hint of m dimensions is the first m of the largest one that was trained: the frame's directions
are ordered (ktan/teachers/alignment.py), and the alignment to fewer of them is the same map cut
off. Its bound scales the largest hint's bound by the ratio of the two norms' quantiles over the
public-only teachers; the service takes the quantile over its reference network instead.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ktan.networks import multiply_adds
from ktan.teachers import TeacherModels
from ktan.threads import suit_threads
from privacy.accounting import SIGMA
from privacy.audit.planning import calibrate
from privacy.audit.proposal import Proposal, TapForecast, TapProposal, TrueLabels
from privacy.audit.simulation.stand_in import StandIn
from privacy.errors import InvalidPlan
from privacy.noise import Closeness
from privacy.release import TapRelease, aggregate, perturb

_REPEATS = 8
"""Draws of noise for each sample; the samples' own spread is larger from here on."""

_BATCH = 256
_VALUES = 4_000_000
"""Values that are bounded and quantised at once."""


class SimulatedNoise:
    """round(N(0, SIGMA²)) from a seeded generator: the law that is served, for forecasts only.

    Who knows the seed knows the noise: the closeness says so, and no ledger's plan covers it.
    """

    name = "simulated-rounded-gaussian"
    closeness = Closeness(0.0, 1.0)

    def __init__(self, seed: int = 0) -> None:
        self._generator = np.random.default_rng(seed)

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        """int64 [count]."""
        return np.rint(self._generator.normal(0.0, SIGMA, count)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class PublicAnswers:
    """What public-only teachers say of held-out public samples.

    teachers: k that they stand for; the arrays may hold fewer.
    answers: tap name → float32 [trained, n, m], aligned, not bounded.
    labels: int64 [n], the true classes.
    bounds: tap name → B of the whole answer, from the teachers' card.
    quantile: of norms, at which bounds were found.
    """

    teachers: int
    answers: Mapping[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]
    bounds: Mapping[str, float]
    quantile: float

    @classmethod
    def compute(cls, folder: Path, public: StandIn) -> "PublicAnswers":
        """Runs the teachers in `folder` on the held-out samples."""
        models = TeacherModels.load(folder)
        suit_threads(multiply_adds(models.card.network) * 32)
        test, dataset = public.parts.test, public.dataset
        parts = [
            models.answers(dataset.samples[test[start : start + _BATCH]])
            for start in range(0, len(test), _BATCH)
        ]
        answers = {
            name: np.concatenate([part[name].flatten(2).cpu().numpy() for part in parts], axis=1)
            for name in parts[0]
        }
        card = models.card
        return cls(
            teachers=public.teachers,
            answers=answers,
            labels=dataset.labels[test].numpy(),
            bounds={entry.tap.name: entry.bound for entry in card.taps},
            quantile=float(card.training["bound_quantile"]),
        )

    def bound(self, tap: TapProposal) -> float:
        """B of a tap, of a reduced hint as the module says."""
        whole = self.bounds[tap.name]
        values = self.answers[tap.name].astype(np.float64)
        if tap.kind != "hint" or tap.dimension == values.shape[2]:
            return whole
        norms = np.sqrt(np.square(values).cumsum(axis=2)).reshape(-1, values.shape[2])
        reduced, largest = np.quantile(norms[:, [tap.dimension - 1, -1]], self.quantile, axis=0)
        if not 0.0 < reduced < math.inf:
            raise InvalidPlan(f"tap {tap.name!r}: the teachers say the same of every public sample")
        return whole * float(reduced / largest)

    def forecast(self, proposal: Proposal) -> tuple[TapForecast, ...]:
        """What each tap of a proposal is worth. Raises InvalidPlan as `planning.calibrate` does.

        Norms and noise are relative to each tap's bound.
        """
        if proposal.teachers != self.teachers:
            raise ValueError(f"answers of k = {self.teachers}, not {proposal.teachers}")
        bounded = tuple(replace(tap, bound=self.bound(tap)) for tap in proposal.taps)
        _, releases = calibrate(replace(proposal, taps=bounded))
        return tuple(self._forecast(release) for release in releases)

    def _forecast(self, tap: TapRelease) -> TapForecast:
        answers = self.answers[tap.name][:, :, : tap.dimension]
        total = _summed(tap, answers)
        clean = total / (tap.radius * tap.teachers)
        noise_sd = tap.noise_sd / tap.bound
        varying = clean if tap.kind == "hint" else clean - clean.mean(axis=1, keepdims=True)
        norms = (noise_sd * math.sqrt(tap.dimension), _root_mean_square(varying))
        if tap.kind == "hint":
            return TapForecast(tap, noise_sd, *norms, None, None)
        noise = SimulatedNoise()
        named = np.stack([perturb(tap, total, noise).argmax(axis=1) for _ in range(_REPEATS)])
        first = clean.argmax(axis=1)
        agreement, agreement_error = _mean_and_error(named == first)
        noisy, noisy_error = _mean_and_error(named == self.labels)
        truth = TrueLabels(
            alone=float(np.mean(answers.argmax(axis=2) == self.labels)),
            clean=float(np.mean(first == self.labels)),
            noisy=noisy,
            error=noisy_error,
        )
        return TapForecast(tap, noise_sd, *norms, agreement, agreement_error, truth)


def _summed(tap: TapRelease, answers: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Σ q over k teachers, those that were trained in turn: int64 [n, m]."""
    turn = np.arange(tap.teachers) % len(answers)
    rows = max(1, _VALUES // (tap.teachers * tap.dimension))
    parts = [
        aggregate(tap, answers[turn, start : start + rows])
        for start in range(0, answers.shape[1], rows)
    ]
    return np.concatenate(parts)


def _mean_and_error(same: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Of [repeats, n]: the mean, and its standard error over samples, each with its own draws."""
    by_sample = same.mean(axis=0)
    count = len(by_sample)
    spread = max(float(by_sample.var()), 1.0 / count)
    return float(by_sample.mean()), math.sqrt(spread / count)


def _root_mean_square(vectors: npt.NDArray[np.float64]) -> float:
    return math.sqrt(float(np.mean(np.square(vectors).sum(axis=1))))
