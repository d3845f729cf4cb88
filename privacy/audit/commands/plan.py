"""`privacy-audit plan`: what a budget buys, before a single query is asked."""

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from privacy.accounting import SIGMA
from privacy.audit.commands.options import Flag, Names
from privacy.audit.plan_screen import plan_text
from privacy.audit.planning import forecast
from privacy.audit.proposal import Forecast, Mode, Proposal
from privacy.audit.published import PublishedComparison, published_epsilon
from privacy.audit.tap_option import parse_taps
from privacy.errors import PrivacyError


def plan(
    *,
    epsilon: float,
    delta: float = 1e-5,
    queries: int = 300,
    mode: Mode = "ensemble",
    teachers: int | None = None,
    classes: int = 10,
    taps: Names = ("probabilities",),
    share: Names = (),
    unit: str = "record",
    draws: int | None = None,
    teacher_accuracy: float = 0.8,
    confidence: float = 0.9,
    hint_cosine: float = 0.96,
    measured: Path | None = None,
    sample_rate: float | None = None,
    steps: int | None = None,
    records: int | None = None,
    parameters: int | None = None,
    published_rate: float | None = None,
    json: Flag = False,
) -> None:
    """Say what a privacy budget buys, before a single query is asked.

    Parameters
    ----------
    epsilon
        ε of the promise: everything that all clients together ever learn.
    delta
        δ of the same promise; well under one over the number of private units.
    queries
        Public samples that the service is to answer.
    mode
        How the service is private: k teachers on disjoint shards, one teacher trained by DP-SGD,
        or one ordinary teacher.
    teachers
        Number of teachers k of an ensemble; 200 when not given.
    classes
        Number of classes: the values of `logits` and `probabilities`.
    taps
        What is released: logits, probabilities, or a hint as hint:DIMENSIONS; repeat for several;
        probabilities alone when not given.
    share
        Weight of a tap in the budget, as TAP=WEIGHT; equal weights when not given.
    unit
        What the promise protects.
    draws
        Noise draws that the ledger may ever use, one a released number; set from ε and δ when
        not given.
    teacher_accuracy
        Accuracy of one teacher, for the model of its answers.
    confidence
        Probability that a teacher puts on the class it names; lower for a higher temperature.
    hint_cosine
        Mean cosine between the aligned hints of two teachers.
    measured
        .npy file, [samples, classes]: mean probabilities of teachers on public samples, in place
        of the model.
    sample_rate
        Of the DP-SGD run: probability that a record enters a step.
    steps
        Of the DP-SGD run: number of steps.
    records
        Private records behind the DP-SGD run, to judge its gradients' signal-to-noise.
    parameters
        Trainable parameters of the DP-SGD network, for the same.
    published_rate
        Sampling rate of public queries under which published work would account the same answers;
        prints that figure, which is no guarantee, beside the sound one.
    json
        Print one JSON object.
    """
    proposal = Proposal(
        epsilon=epsilon,
        delta=delta,
        queries=queries,
        taps=parse_taps(taps, share, classes),
        mode=mode,
        teachers=teachers if teachers is not None else (200 if mode == "ensemble" else 1),
        unit=unit,
        draws=draws,
        teacher_accuracy=teacher_accuracy,
        confidence=confidence,
        hint_cosine=hint_cosine,
        sample_rate=sample_rate,
        steps=steps,
        records=records,
        parameters=parameters,
    )
    outcome = forecast(proposal, None if measured is None else _measured(measured))
    published = None if published_rate is None else _published(outcome, queries, published_rate)
    if json:
        print(jsonlib.dumps(_plan_json(outcome, published)))
    else:
        print(plan_text(outcome, published))


def _measured(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (ValueError, TypeError, EOFError) as error:
        raise PrivacyError(f"{path} holds no array of numbers ({error})") from None


def _published(outcome: Forecast, queries: int, rate: float) -> PublishedComparison:
    charge = sum(tap.release.charge for tap in outcome.taps)
    if not charge:
        raise PrivacyError("--published-rate compares answers that are charged; these are free")
    return published_epsilon(SIGMA / charge**0.5, rate, queries, outcome.promise.delta)


def _plan_json(outcome: Forecast, published: PublishedComparison | None) -> dict[str, Any]:
    training = outcome.training
    return {
        "promise": outcome.promise.to_json(),
        "plan": outcome.plan.to_json(),
        "mu_max": outcome.plan.mu_max,
        "mu": outcome.mu,
        "draws_needed": outcome.draws_needed,
        "taps": [
            {
                **tap.release.to_json(),
                "charge": tap.release.charge,
                "noise_sd": tap.noise_sd,
                "noise_norm": tap.noise_norm,
                "signal_norm": tap.signal_norm,
                # JSON has no infinity: null where there is no noise.
                "signal_to_noise": tap.signal_to_noise if tap.noise_norm else None,
                "agreement": tap.agreement,
                "agreement_error": tap.agreement_error,
            }
            for tap in outcome.taps
        ],
        "training": None if training is None else asdict(training),
        "useful": outcome.useful,
        "verdict": outcome.verdict,
        "advice": list(outcome.advice),
        "model": outcome.model,
        "published": None if published is None else asdict(published),
    }
