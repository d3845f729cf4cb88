"""What a method needs of a teacher, and whether a teacher's taps give it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ktan.errors import UserError
from ktan.teacher import AnswerTap

NeedKind = Literal["response", "logits", "hint", "maps", "attention", "signs", "products"]


@dataclass(frozen=True)
class Need:
    """One thing that a method asks of a teacher.

    - `response`: probabilities or logits;
    - `logits`;
    - `hint`: any hint or TSL's output, noisy or not;
    - `maps`: whole maps without noise;
    - `attention`: attention taps, or whole maps without noise, from which it is derived;
    - `products`: products taps, or at least two whole maps without noise, in order of running;
    - `signs`: signs taps.
    """

    kind: NeedKind
    least: int = 1
    """How many taps at least."""
    optional: bool = False
    """Used, and paid for, where the teacher answers it; done without where it does not."""

    @property
    def text(self) -> str:
        """In words, for a refusal."""
        what = {
            "response": "probabilities or logits",
            "logits": "logits",
            "hint": "a hint (--taps hint=PATH)",
            "maps": "whole maps without noise (a dp-sgd teacher with --taps hint=PATH:map)",
            "attention": "attention (--taps attention=PATH)",
            "signs": "signs (--taps signs=PATH)",
            "products": "products (--taps products=PATH,PATH)",
        }[self.kind]
        counted = {1: what, 2: f"two {what}"}.get(self.least, f"{self.least} {what}")
        return f"{counted}, if there is any" if self.optional else counted


def taps_for(need: Need, taps: Mapping[str, AnswerTap]) -> list[AnswerTap]:
    """The taps that serve a need, in the teacher's order; empty when they do not suffice.

    One response is enough, probabilities before logits. Derived taps come before maps to derive
    them from.
    """
    if need.kind in ("response", "logits"):
        kinds = ("logits",) if need.kind == "logits" else ("probabilities", "logits")
        return [tap for kind in kinds for tap in taps.values() if tap.kind == kind][:1]
    if need.kind == "hint":
        found = [tap for tap in taps.values() if tap.kind in ("hint", "tsl")]
    elif need.kind == "maps":
        found = _maps(taps)
    else:
        found = [tap for tap in taps.values() if tap.kind == need.kind]
        if not found and need.kind == "attention":
            found = _maps(taps)
        if not found and need.kind == "products":
            found = _maps(taps) if len(_maps(taps)) >= 2 else []
    return found if len(found) >= need.least else []


def missing(needs: Sequence[Need], taps: Mapping[str, AnswerTap]) -> list[str]:
    """What is needed and not there, in words."""
    return [need.text for need in needs if not need.optional and not taps_for(need, taps)]


def serving(needs: Sequence[Need], taps: Mapping[str, AnswerTap]) -> dict[str, AnswerTap]:
    """The taps that a method with these needs would use: what it has to pay for."""
    wanted = {tap.name for need in needs for tap in taps_for(need, taps)}
    return {name: tap for name, tap in taps.items() if name in wanted}


def require(needs: Sequence[Need], taps: Mapping[str, AnswerTap], method: str) -> None:
    """Raises UserError naming what the teacher does not answer."""
    lacking = missing(needs, taps)
    if lacking:
        answered = ", ".join(f"{tap.name} ({tap.kind})" for tap in taps.values()) or "nothing"
        raise UserError(
            f"method {method} needs {' and '.join(lacking)}; the teacher answers {answered}: "
            "choose a method that these serve, or ask its custodian for more"
        )


def _maps(taps: Mapping[str, AnswerTap]) -> list[AnswerTap]:
    return [
        tap
        for tap in taps.values()
        if tap.kind == "hint" and len(tap.shape) == 3 and not tap.noise_sd
    ]
