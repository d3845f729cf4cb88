"""Which methods a teacher's taps can serve and at what price, and which lack something."""

from __future__ import annotations

import textwrap
from typing import Final

from ktan.methods import METHODS
from ktan.methods.needs import missing, serving
from student_client.description import MethodOffer, TeacherDescription

_WIDTH: Final = 80


def served(description: TeacherDescription) -> tuple[MethodOffer, ...]:
    """By name: what the service offers, and what methods that only this client knows would ask."""
    found = {offer.name: offer for offer in description.offers}
    taps = {tap.name: tap for tap in description.answer_taps}
    for name, kind in METHODS.items():
        needs = kind().needs
        if name not in found and needs and not missing(needs, taps):
            used = tuple(serving(needs, taps))
            found[name] = MethodOffer(name, used, description.charge_of(used))
    return tuple(found[name] for name in sorted(found))


def impossible(description: TeacherDescription) -> dict[str, list[str]]:
    """Method → what it needs, with its default options, and the teacher does not answer."""
    taps = {tap.name: tap for tap in description.answer_taps}
    offered = {offer.name for offer in description.offers}
    lacking = {
        name: missing(kind().needs, taps) for name, kind in METHODS.items() if name not in offered
    }
    return {name: texts for name, texts in lacking.items() if texts}


def methods_text(description: TeacherDescription) -> str:
    """A line for each method that can be taught: charge of a sample, samples left, taps.

    Then those that cannot, with what they lack.
    """
    left = description.budget.client_left
    head = ("Method", "charge", "buys", "taps")
    rows = [
        (
            offer.name,
            f"{offer.charge:,}",
            f"{left // offer.charge:,}" if offer.charge else "any",
            ", ".join(offer.taps),
        )
        for offer in served(description)
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    lines = []
    for name, charge, buys, taps in (head, *rows) if rows else ():
        start = f"{name:<{widths[0]}}  {charge:>{widths[1]}}  {buys:>{widths[2]}}  "
        lines.append(_folded(start, taps))
    lines += [
        _folded("Impossible  " if place == 0 else " " * 12, f"{name}: needs {' and '.join(texts)}")
        for place, (name, texts) in enumerate(impossible(description).items())
    ]
    return "\n".join(lines)


def _folded(start: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
    )
