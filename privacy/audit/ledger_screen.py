"""What a verification looks like on a screen: figures with units, verdict last."""

import textwrap
from pathlib import Path

from privacy.audit.layout import WIDTH, counted, paragraph, table
from privacy.audit.ledger_report import LedgerReport
from privacy.budget import BudgetPlan
from privacy.noise import sources_within

_MOST_VIOLATIONS = 20
_HOLDS = "VERIFIED: chain, signatures, charges and plan hold, and all of these agree"
_REHEARSAL_HOLDS = (
    "A REHEARSAL'S THROW-AWAY LEDGER, of synthetic teachers and no data: it promises nothing.\n"
    "Chain, signatures and charges hold, and all of these agree"
)


def ledger_text(report: LedgerReport, saved: Path | None = None) -> str:
    """The report of `privacy-audit ledger`. saved: where the log was kept."""
    lines = [f"ledger       {report.ledger_id}", f"             read from {report.source}"]
    if report.opening is not None:
        plan = report.opening.plan
        promise = plan.promise
        at = f"at δ = {promise.delta:g}, {promise.adjacency.value}"
        lines += [
            f"data set     {report.opening.dataset_id}",
            paragraph("promise", promise.sentence()),
        ]
    lines += _keys(report)
    if report.times is not None:
        lines.append(
            f"entries      {report.entries:,}, from {_moment(report.times[0])} to "
            f"{_moment(report.times[1])}"
        )
    if report.head is not None:
        lines.append(f"head         entry {report.head.entry}, {report.head.entry_hash.hex()}")
    if report.opening is not None:
        spent, budget = report.spent, plan.answer_units
        lines += [
            f"spent        ε = {_epsilon(report.epsilon_spent)} of {promise.epsilon:g} {at}",
            f"answers      {spent:,} of {budget:,} units (μ²·2⁴⁰) charged"
            f"{_share(spent, budget)}, {max(0, budget - spent):,} left",
            f"noise draws  {report.draws:,} of {plan.draws:,} used"
            f"{_share(report.draws, plan.draws)}{_sources(plan)}",
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
        f"held against {counted(report.receipts, 'receipt')} and "
        f"{counted(report.heads, 'head')} kept elsewhere",
    ]
    if saved is not None:
        lines.append(f"saved to {saved}, head included")
    if report.sound:
        lines.append(_REHEARSAL_HOLDS if report.rehearsal else _HOLDS)
        if not report.receipts and not report.heads:
            lines.append(
                "Nothing from outside was compared: a log that was cut off or rewritten by whoever "
                "holds its\nsigning key looks just like this. Give --receipts or --head."
            )
        return "\n".join(lines)
    return "\n".join([*lines, "", *_violations(report)])


def _keys(report: LedgerReport) -> list[str]:
    """The key that signs now, where it is known from, and the ones before it."""
    keys = list(report.keys)
    lines = [f"public key   {keys[-1].public_key.hex()}"]
    for number, key in reversed(list(enumerate(keys[:-1]))):
        lines.append(
            f"             since entry {keys[number + 1].entry}, endorsed by "
            f"{key.public_key.hex()[:16]}… (from entry {key.entry})"
        )
    return [*lines, f"             known from {report.key_source}"]


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
    return table(
        ["client", "requests", "new releases", "units spent", "units left", "cap", "ε on its own"],
        rows,
        left_aligned=(0, 6),
    )


def _violations(report: LedgerReport) -> list[str]:
    shown = report.violations[:_MOST_VIOLATIONS]
    width = max(len(violation.kind) for violation in shown)
    lines = [f"*** NOT VERIFIED: {counted(len(report.violations), 'violation')} ***"]
    lines += [
        textwrap.fill(
            f"{violation.kind.upper():<{width}}  {violation.message}",
            WIDTH,
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


def _share(part: int, whole: int) -> str:
    return f" ({part / whole:.1%})" if whole else ""


def _sources(plan: BudgetPlan) -> str:
    names = sources_within(plan.closeness)
    return f"; their error is set aside for {' or '.join(names)}" if plan.draws and names else ""


def _epsilon(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _moment(time: str) -> str:
    """To the second, as a person reads it: 2030-01-31 12:00:00 UTC."""
    return time[:19].replace("T", " ") + " UTC" if time.endswith("Z") else time
