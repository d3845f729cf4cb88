"""Which distillation methods a menu can serve, and at what charge: for `Describe` to publish.

Read from what the methods say of themselves. It needs torch, as they do; the service gets the
offers as plain values.
"""

from __future__ import annotations

from collections.abc import Sequence

from ktan.methods import METHODS
from ktan.methods.needs import missing, serving
from ktan.teacher import AnswerTap
from teacher_server.menu import MethodOffer, ServedTap


def method_offers(menu: Sequence[ServedTap]) -> tuple[MethodOffer, ...]:
    """Every method that needs a teacher and that these taps are enough for, by name.

    With the method's default options; a client that sets others may need other taps.
    """
    taps = {tap.name: answer_tap(tap) for tap in menu}
    charges = {tap.name: tap.release.charge for tap in menu}
    offers = []
    for name, kind in METHODS.items():
        needs = kind().needs
        if needs and not missing(needs, taps):
            used = tuple(serving(needs, taps))
            offers.append(MethodOffer(name, used, sum(charges[tap] for tap in used)))
    return tuple(offers)


def answer_tap(tap: ServedTap) -> AnswerTap:
    """A tap as a student sees it."""
    return AnswerTap(
        tap.name, tap.release.kind, tap.shape, tap.release.noise_sd, tap.temperature or 1.0
    )
