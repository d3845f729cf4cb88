"""A forecast and a grid for a machine: plain JSON values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from privacy.audit.grid import Row
from privacy.audit.proposal import Forecast, TapForecast
from privacy.audit.published import PublishedComparison
from privacy.audit.recommendation import Recommendation


def plan_json(outcome: Forecast, published: PublishedComparison | None) -> dict[str, Any]:
    """Of one proposal."""
    training = outcome.training
    return {
        "promise": outcome.promise.to_json(),
        "plan": outcome.plan.to_json(),
        "mu_max": outcome.plan.mu_max,
        "mu": outcome.mu,
        "draws_needed": outcome.draws_needed,
        "taps": [_tap(tap) for tap in outcome.taps],
        "training": None if training is None else asdict(training),
        "useful": outcome.useful,
        "verdict": outcome.verdict,
        "advice": list(outcome.advice),
        "model": outcome.model,
        "published": None if published is None else asdict(published),
    }


def grid_json(rows: Sequence[Row], advice: Recommendation, source: Sequence[str]) -> dict[str, Any]:
    """Of a grid; `recommended` and `best_at_each_epsilon` are positions in `rows`."""
    first = rows[0].proposal
    return {
        "mode": first.mode,
        "delta": first.delta,
        "unit": first.unit,
        "source": list(source),
        "rows": [
            {
                "teachers": row.proposal.teachers,
                "queries": row.proposal.queries,
                "epsilon": row.proposal.epsilon,
                "shares": {tap.name: tap.share for tap in row.proposal.taps},
                "taps": [_tap(tap) for tap in row.taps],
                "refused": row.refused or None,
            }
            for row in rows
        ],
        "recommended": advice.chosen,
        "best_at_each_epsilon": list(advice.best),
        "tolerance": advice.tolerance,
        "reason": advice.reason,
    }


def _tap(tap: TapForecast) -> dict[str, Any]:
    return {
        **tap.release.to_json(),
        "charge": tap.release.charge,
        "noise_sd": tap.noise_sd,
        "noise_norm": tap.noise_norm,
        "signal_norm": tap.signal_norm,
        # JSON has no infinity: null where there is no noise.
        "signal_to_noise": tap.signal_to_noise if tap.noise_norm else None,
        "agreement": tap.agreement,
        "agreement_error": tap.agreement_error,
        "true_labels": None if tap.true_labels is None else asdict(tap.true_labels),
    }
