"""What a forecast looks like on a screen: figures with units, verdict last."""

import math

from privacy.audit.layout import counted, paragraph, table
from privacy.audit.proposal import Forecast, TapForecast
from privacy.audit.published import PublishedComparison


def plan_text(forecast: Forecast, published: PublishedComparison | None = None) -> str:
    """The report of `privacy-audit plan`."""
    plan = forecast.plan
    lines = [paragraph("promise", forecast.promise.sentence())]
    if forecast.training is None:
        lines += [
            f"budget       μ = {plan.mu_max:.4f}, of which all queries together use "
            f"μ = {forecast.mu:.4f}",
            f"noise draws  {forecast.draws_needed:,} of {plan.draws:,}",
        ]
    else:
        run, training = forecast.training.run, forecast.training
        lines += [
            f"training     {run.steps:,} steps at sample rate {run.sample_rate:g}: noise "
            f"multiplier {run.noise_multiplier:.4g}",
            f"             ε = {training.epsilon:.3f} replace-one, "
            f"{training.epsilon_add_remove:.3f} add/remove, at δ = {training.delta:g}",
        ]
        if training.gradient_signal_to_noise is not None:
            lines.append(
                f"             gradient signal-to-noise of one step at most "
                f"{training.gradient_signal_to_noise:.2g}"
            )
        lines.append("answers      free: post-processing of the private training")
    teachers = forecast.taps[0].release.teachers
    lines += ["", f"{counted(teachers, 'teacher')}; figures are for one answer"]
    lines += table(
        ["tap", "values", "σ", "noise", "signal", "signal/noise", "top-1 agreement"],
        [_tap(tap) for tap in forecast.taps],
    )
    if any(tap.noise_sd for tap in forecast.taps):
        lines.append(
            "σ: of the noise on each value; noise, signal: root mean square L2 norms of a whole "
            "answer,\nhints relative to their bound B"
        )
    if published is not None:
        lines += [
            "",
            f"sound        ε = {published.sound:.3f} for these answers",
            f"published    ε = {published.claimed:.3f} ({published.label})",
        ]
    lines += ["", paragraph("verdict", forecast.verdict)]
    lines += [paragraph("advice", sentence) for sentence in forecast.advice]
    if forecast.model:
        lines.append(paragraph("model", forecast.model))
    return "\n".join(lines)


def _tap(tap: TapForecast) -> list[str]:
    agreement = "-"
    if tap.agreement is not None:
        error = f" ± {2 * tap.agreement_error:.1%}" if tap.agreement_error else ""
        agreement = f"{tap.agreement:.1%}{error}"
    clean = math.isinf(tap.signal_to_noise)
    return [
        tap.release.name,
        f"{tap.release.dimension:,}",
        f"{tap.noise_sd:.3g}",
        f"{tap.noise_norm:.3g}",
        f"{tap.signal_norm:.3g}",
        "no noise" if clean else f"{tap.signal_to_noise:.2f}",
        agreement,
    ]
