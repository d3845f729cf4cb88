"""What a verification and a forecast look like on a screen: figures with units, verdict last."""

import math
import textwrap
from collections.abc import Sequence

from privacy.audit.ledger_check import LedgerReport
from privacy.audit.proposal import Forecast, TapForecast
from privacy.audit.published import PublishedComparison

_MOST_VIOLATIONS = 20
_WIDTH = 100


def ledger_text(report: LedgerReport) -> str:
    """The report of `privacy-audit ledger`."""
    lines = [f"ledger       {report.ledger_id}"]
    if report.opening is not None:
        plan = report.opening.plan
        promise = plan.promise
        at = f"at δ = {promise.delta:g}, {promise.adjacency.value}"
        lines += [
            f"data set     {report.opening.dataset_id}",
            _paragraph("promise", promise.sentence()),
        ]
    lines.append(
        f"public key   {report.public_key.hex()}\n             known from {report.key_source}"
    )
    if report.times is not None:
        lines.append(
            f"entries      {report.entries:,}, from {_moment(report.times[0])} to "
            f"{_moment(report.times[1])}"
        )
    if report.opening is not None:
        spent, budget = report.spent, plan.answer_units
        lines += [
            f"spent        ε = {_epsilon(report.epsilon_spent)} of {promise.epsilon:g} {at}",
            f"answers      {spent:,} of {budget:,} units (μ²·2⁴⁰) charged"
            f"{_share(spent, budget)}, {max(0, budget - spent):,} left",
            f"noise draws  {report.draws:,} of {plan.draws:,} used"
            f"{_share(report.draws, plan.draws)}",
        ]
        if plan.training:
            lines.append(
                f"training     {report.training_used} of {len(plan.training)} reserved DP-SGD runs "
                "used; ε counts all of them as spent"
            )
        if report.clients:
            lines += ["", *_clients(report, f"of {promise.epsilon:g} {at}")]
    lines += [
        "",
        f"held against {_count(report.receipts, 'receipt')} and "
        f"{_count(report.heads, 'head')} kept elsewhere",
    ]
    if report.sound:
        lines.append("VERIFIED: chain, signatures, charges and plan hold, and all of these agree")
        if not report.receipts and not report.heads:
            lines.append(
                "Nothing from outside was compared: a log that was cut off or rewritten by whoever "
                "holds its\nsigning key looks just like this. Give --receipts or --head."
            )
        return "\n".join(lines)
    return "\n".join([*lines, "", *_violations(report)])


def plan_text(forecast: Forecast, published: PublishedComparison | None = None) -> str:
    """The report of `privacy-audit plan`."""
    plan = forecast.plan
    lines = [_paragraph("promise", forecast.promise.sentence())]
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
    lines += ["", f"{_count(teachers, 'teacher')}; figures are for one answer"]
    lines += _table(
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
    lines += ["", _paragraph("verdict", forecast.verdict)]
    lines += [_paragraph("advice", sentence) for sentence in forecast.advice]
    if forecast.model:
        lines.append(_paragraph("model", forecast.model))
    return "\n".join(lines)


def _clients(report: LedgerReport, of_promise: str) -> list[str]:
    rows = [
        [
            client.client,
            f"{client.requests:,}",
            f"{client.new_answers:,}",
            f"{client.spent:,}",
            f"{client.left:,}",
            "none" if client.cap is None else f"{client.cap:,}",
            f"{_epsilon(client.epsilon)} {of_promise}",
        ]
        for client in report.clients
    ]
    return _table(
        ["client", "requests", "new releases", "units spent", "units left", "cap", "ε on its own"],
        rows,
        left_aligned=(0, 6),
    )


def _violations(report: LedgerReport) -> list[str]:
    shown = report.violations[:_MOST_VIOLATIONS]
    width = max(len(violation.kind) for violation in shown)
    lines = [f"*** NOT VERIFIED: {_count(len(report.violations), 'violation')} ***"]
    lines += [
        textwrap.fill(
            f"{violation.kind.upper():<{width}}  {violation.message}",
            _WIDTH,
            subsequent_indent=" " * (width + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for violation in shown
    ]
    hidden = len(report.violations) - len(shown)
    if hidden:
        lines.append(f"… and {hidden:,} more (--json lists all)")
    lines.append("Do not rely on the figures above, nor on the promise.")
    return lines


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


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], left_aligned: Sequence[int] = (0,)
) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            f"{cell:<{width}}" if column in left_aligned else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _paragraph(label: str, text: str) -> str:
    indent = " " * 13
    return textwrap.fill(
        f"{label:<13}{text}",
        _WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f" ({part / whole:.1%})" if whole else ""


def _epsilon(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _moment(time: str) -> str:
    """To the second, as a person reads it: 2030-01-31 12:00:00 UTC."""
    return time[:19].replace("T", " ") + " UTC" if time.endswith("Z") else time
