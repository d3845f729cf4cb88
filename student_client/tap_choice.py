"""Which of a teacher's taps are asked, and paid for: those that the methods use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ktan.methods import Method
from ktan.methods.needs import missing, require, serving
from ktan.teacher import AnswerTap

Taps = Mapping[str, AnswerTap]
TapChoice = Callable[[Taps], Taps]
"""From all taps of a teacher to those that are asked, in the teacher's order."""


def all_taps(taps: Taps) -> Taps:
    """Whatever the teacher answers."""
    return taps


def used_by(method: Method, *, all_of_them: bool = False) -> TapChoice:
    """What one method uses; raises UserError with the taps that are missing.

    `all_of_them`: all taps of a teacher that suffices, for methods that come later.
    """

    def choose(taps: Taps) -> Taps:
        require(method.needs, taps, method.name)
        return taps if all_of_them else serving(method.needs, taps)

    return choose


def used_by_any(methods: Iterable[Method]) -> TapChoice:
    """What those methods use together that the teacher can serve; the others ask nothing."""
    given = tuple(methods)

    def choose(taps: Taps) -> Taps:
        used = {
            name
            for method in given
            if not missing(method.needs, taps)
            for name in serving(method.needs, taps)
        }
        return {name: tap for name, tap in taps.items() if name in used}

    return choose
