"""A teacher, its promise and what is left, as text for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from privacy.promise import Promise
from student_client.cost import Quote
from student_client.description import Budget, TeacherDescription

WIDTH: Final = 80
_LABEL: Final = 10


def describe_text(description: TeacherDescription) -> str:
    """Everything that `describe` shows."""
    # Comes with torch, which the budget is shown without.
    from student_client.methods_table import methods_text

    many = "s" if description.teachers != 1 else ""
    classes = ", ".join(description.classes)
    lines = [
        labelled("Teacher", f"{description.mode}, {description.teachers:,} teacher{many}"),
        labelled("Version", description.version),
        labelled("Data", f"{description.dataset}, {len(description.classes)} classes: {classes}"),
        labelled(
            "Input",
            f"{description.input_dtype} {list(description.input_shape)}, "
            f"up to {description.max_samples:,} samples a request",
        ),
        "",
        _taps_text(description),
        "",
        methods_text(description),
        "",
        budget_text(description.budget, description.promise, description.charge),
        labelled("Ledger", description.ledger_id),
        labelled("Signed by", f"Ed25519 {description.public_key.hex()}"),
    ]
    return "\n".join(lines)


def budget_text(budget: Budget, promise: Promise, charge: int | None = None) -> str:
    """Promise, spent and left; with the `charge` of one sample, how many it is enough for."""
    lines = [
        labelled("Promise", promise_text(promise)),
        labelled(
            "Spent", f"ε = {budget.epsilon_spent:.3g} of {budget.epsilon_budget:g} (all clients)"
        ),
        labelled("Left", f"{budget.left:,} of {budget.budget:,} charge units (μ²·2⁴⁰)"),
    ]
    if budget.client_cap:
        lines.append(
            labelled(
                "Your cap",
                f"{budget.client_cap:,}, of which {budget.client_spent:,} spent; "
                f"you may spend {budget.client_left:,}",
            )
        )
    if charge == 0:
        lines.append(labelled("Buys", "any number of answers: they cost nothing (post-processing)"))
    elif charge is not None:
        lines.append(labelled("Buys", f"{budget.client_left // charge:,} new answers"))
    return "\n".join(lines)


def budget_json(budget: Budget, promise: Promise) -> dict[str, Any]:
    """For machines: `budget --json`."""
    return {
        "promise": promise.to_json(),
        "budget": budget.budget,
        "spent": budget.spent,
        "left": budget.left,
        "client_cap": budget.client_cap or None,
        "client_spent": budget.client_spent,
        "client_left": budget.client_left,
        "epsilon_spent": budget.epsilon_spent,
        "epsilon_budget": budget.epsilon_budget,
        "draws_left": budget.draws_left,
    }


def quote_text(price: Quote, description: TeacherDescription, chosen: int) -> str:
    """What `chosen` queries cost, of which `price.samples` are not answered yet."""
    promise = description.promise
    # Later rounds may choose what is here already: the price of all can be above what is left.
    left_then = max(price.budget.client_left - price.charge, 0)
    stored = chosen - price.samples
    new = f"{price.samples:,} new answers" + (f" ({stored:,} are here already)" if stored else "")
    if price.charge == 0:
        return labelled("Cost", f"nothing: {new}, whose privacy the teacher's training paid for")
    after = (
        f"{price.epsilon_after:.3g}"
        if price.epsilon_after is not None
        else f"at most {price.budget.epsilon_budget:g}"
    )
    return "\n".join(
        [
            labelled("Asked", f"{', '.join(price.taps)}: {price.each:,} charge units a sample"),
            labelled("Cost", f"{new} × at most {price.each:,} = {price.charge:,} charge units")
            if price.charge == price.samples * price.each
            else labelled("Cost", f"{new}, some of them in part: {price.charge:,} charge units"),
            labelled(
                "Privacy",
                f"ε = {price.budget.epsilon_spent:.3g} → {after} of "
                f"{price.budget.epsilon_budget:g} at δ = {plain(promise.delta)}, "
                f"{promise.adjacency.value}, one {promise.unit}",
            ),
            labelled(
                "Left then",
                f"{left_then:,} charge units, {left_then // price.each:,} more answers",
            ),
        ]
    )


def promise_text(promise: Promise) -> str:
    """The promise in a line or two; what stands behind it is docs/privacy/promise.md."""
    return promise.sentence().replace(f"{promise.delta:g}", plain(promise.delta))


def labelled(label: str, text: str) -> str:
    """`text` beside its label, folded at 80 columns under itself."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
    )


def plain(value: float) -> str:
    """1e-5 rather than 1e-05."""
    return f"{value:g}".replace("e-0", "e-")


def _taps_text(description: TeacherDescription) -> str:
    head = ("Tap", "kind", "shape", "bound", "noise sd", "charge")
    rows = [
        (
            priced.tap.name,
            _kind(priced.tap.kind, priced.tap.temperature),
            "×".join(map(str, priced.tap.shape)),
            f"{priced.bound:.3g}" if priced.bound else "none",
            f"{priced.tap.noise_sd:.3g}" if priced.tap.noise_sd else "none",
            f"{priced.charge:,}",
        )
        for priced in description.taps
    ]
    total = ("one sample", "", "", "", "", f"{description.charge:,}")
    return table([head, *rows, total], left=2)


def _kind(kind: str, temperature: float) -> str:
    return f"{kind} at T={temperature:g}" if kind == "probabilities" and temperature != 1 else kind


def table(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns two spaces apart; the first `left` ones flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
