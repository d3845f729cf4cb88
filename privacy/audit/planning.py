"""What a budget buys, before anything is spent.

The noise is known exactly: it follows from ε, δ, k, the number of queries, the shares and the
dimensions by the same functions that the service uses. What it does to an answer depends on how
clear the clean answers are, which is private; a stated model takes their place
(privacy/audit/answer_model.py), or vote shares measured on public data.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from privacy.accounting import NAMES_CLASSES, mu_of_units
from privacy.audit.answer_model import clean_answers, model_sentence, top1_agreement
from privacy.audit.proposal import DpSgdForecast, Forecast, Proposal, TapForecast
from privacy.audit.verdict import judge
from privacy.budget import BudgetPlan, open_plan, settle_draws
from privacy.calibration import radii
from privacy.composition import DpSgdRun, noise_multiplier
from privacy.composition import epsilon as composed_epsilon
from privacy.errors import InvalidPlan
from privacy.promise import Adjacency, Promise
from privacy.release import TapRelease


def forecast(proposal: Proposal, shares: npt.ArrayLike | None = None) -> Forecast:
    """Settings, noise and expected agreement of a proposal, in seconds and without private data.

    shares: optional float [n, classes], the teachers' mean probabilities on public samples
        (for example of public-only teachers, or on a benchmark); replaces the model.

    Raises InvalidPlan where no service could be opened like this.
    """
    if proposal.mode == "dp-sgd":
        return _forecast_dp_sgd(proposal)
    plan, releases = calibrate(proposal)
    taps = model_taps(proposal, releases, shares)
    spent = proposal.queries * sum(tap.release.charge for tap in taps)
    useful, verdict, advice = judge(proposal, taps, shares)
    return Forecast(
        promise=Promise(
            proposal.epsilon,
            proposal.delta,
            Adjacency.REPLACE_ONE,
            proposal.unit,
            proposal.mode,
        ),
        plan=plan,
        mu=mu_of_units(spent),
        draws_needed=_draws_needed(proposal),
        taps=taps,
        training=None,
        useful=useful,
        verdict=verdict,
        advice=advice,
        model=model_sentence(proposal, shares is not None),
    )


def calibrate(proposal: Proposal) -> tuple[BudgetPlan, tuple[TapRelease, ...]]:
    """The ledger's plan and the release of each tap, as the service would have them.

    Raises InvalidPlan where no service could be opened like this, and for `dp-sgd`, whose answers
    have no noise to calibrate.
    """
    if proposal.mode == "dp-sgd":
        raise InvalidPlan(
            "answers of dp-sgd carry no noise: plan one ε, without a grid or --simulate"
        )
    plan = open_plan(proposal.epsilon, proposal.delta, unit=proposal.unit, draws=_draws(proposal))
    radius = radii(
        plan.answer_units,
        proposal.queries,
        {tap.name: tap.share for tap in proposal.taps},
        {tap.name: tap.kind for tap in proposal.taps},
    )
    releases = tuple(
        TapRelease(
            tap.name, tap.kind, tap.dimension, tap.bound, radius[tap.name], proposal.teachers
        )
        for tap in proposal.taps
    )
    return plan, releases


def model_taps(
    proposal: Proposal, releases: Sequence[TapRelease], shares: npt.ArrayLike | None = None
) -> tuple[TapForecast, ...]:
    """What the model of the clean answers (or `shares`, as for `forecast`) makes of `releases`."""
    rng = np.random.default_rng(0)
    return tuple(_forecast_tap(release, proposal, shares, rng) for release in releases)


def _forecast_tap(
    release: TapRelease,
    proposal: Proposal,
    shares: npt.ArrayLike | None,
    rng: np.random.Generator,
) -> TapForecast:
    noise_sd = release.noise_sd
    noise_norm = noise_sd * math.sqrt(release.dimension)
    if release.kind not in NAMES_CLASSES:
        # The norm of the mean of k vectors of norm B with mean pairwise cosine c.
        cosine, k = proposal.hint_cosine, release.teachers
        signal = release.bound * math.sqrt(cosine + (1.0 - cosine) / k)
        return TapForecast(release, noise_sd, noise_norm, signal, None, None)
    clean = clean_answers(release, proposal, shares, rng)
    varying = clean - clean.mean(axis=1, keepdims=True)
    signal = math.sqrt(float(np.mean(np.square(varying).sum(axis=1))))
    agreement, error = top1_agreement(clean, noise_sd, rng)
    return TapForecast(release, noise_sd, noise_norm, signal, agreement, error)


def _forecast_dp_sgd(proposal: Proposal) -> Forecast:
    if proposal.sample_rate is None or proposal.steps is None:
        raise InvalidPlan(
            "mode dp-sgd needs --sample-rate, the probability that a record enters a step, and "
            "--steps, their number"
        )
    draws, delta = settle_draws(proposal.epsilon, proposal.delta, 0)
    sigma = noise_multiplier(proposal.epsilon, delta, proposal.sample_rate, proposal.steps)
    run = DpSgdRun(proposal.sample_rate, sigma, proposal.steps)
    ratio = None
    if proposal.records is not None and proposal.parameters is not None:
        batch = proposal.sample_rate * proposal.records
        ratio = batch / (sigma * math.sqrt(proposal.parameters))
    training = DpSgdForecast(
        run,
        composed_epsilon([run], 0.0, delta),
        composed_epsilon([run], 0.0, delta, Adjacency.ADD_REMOVE),
        delta,
        ratio,
    )
    taps = tuple(
        TapForecast(
            TapRelease.free(tap.name, tap.kind, tap.dimension),
            noise_sd=0.0,
            noise_norm=0.0,
            signal_norm=tap.bound,
            agreement=1.0 if tap.kind in NAMES_CLASSES else None,
            agreement_error=0.0 if tap.kind in NAMES_CLASSES else None,
        )
        for tap in proposal.taps
    )
    verdict = (
        f"answers are free and exact; the price is the teacher's own accuracy: training needs a "
        f"noise multiplier of {sigma:.3g}"
    )
    useful = True
    advice: tuple[str, ...] = ()
    if ratio is not None:
        verdict += f", at most {ratio:.2g} of gradient signal to noise in one step"
        # Over all steps a direction that persists gains √steps on the noise.
        if ratio * math.sqrt(proposal.steps) < 1.0:
            useful = False
            verdict = (
                "useless, because even a gradient that points the same way in every step stays "
                f"under the noise ({ratio * math.sqrt(proposal.steps):.2g} after all steps); "
                f"the noise multiplier is {sigma:.3g}"
            )
            advice = ("use a larger batch, a smaller network, or a larger ε",)
    return Forecast(
        promise=Promise(
            proposal.epsilon, proposal.delta, Adjacency.REPLACE_ONE, proposal.unit, "dp-sgd"
        ),
        plan=BudgetPlan(proposal.epsilon, proposal.delta, proposal.unit, 0, draws, training=(run,)),
        mu=0.0,
        draws_needed=0,
        taps=taps,
        training=training,
        useful=useful,
        verdict=verdict,
        advice=advice,
        model="the accuracy of a DP-SGD teacher is not predicted here: measure it on a benchmark",
    )


def _draws_needed(proposal: Proposal) -> int:
    return proposal.queries * sum(tap.dimension for tap in proposal.taps)


def _draws(proposal: Proposal) -> int:
    """The draws asked for, or enough for every query; refused where δ does not allow them."""
    needed = _draws_needed(proposal)
    if proposal.draws is not None:
        if proposal.draws < needed:
            raise InvalidPlan(
                f"{proposal.queries} queries consume {needed} noise draws, the plan allows "
                f"{proposal.draws}; raise the draws, or ask fewer queries or dimensions"
            )
        return proposal.draws
    default, _ = settle_draws(proposal.epsilon, proposal.delta)
    return max(default, needed)
