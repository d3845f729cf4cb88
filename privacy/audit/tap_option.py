"""The taps of a proposal, from the form in which they are written on a command line.

    logits    probabilities    hint:8    hint=PATH:8    hint=PATH:0,4,8    attention:16

What is derived from features (tsl, attention, signs, products) is written with the number of its
values: a teacher's `attention=PATH:4`, a grid of 4 by 4, is `attention:16` here.
Taps that are repeated are released together; numbers after a comma are alternatives of a grid, 0
for a release without this hint.
The path is that of `teacher-server train`; the planner needs it for a simulation only.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Final, cast, get_args

from privacy.accounting import NAMES_CLASSES, Kind
from privacy.audit.proposal import TapProposal
from privacy.errors import InvalidPlan

_OF_FEATURES: Final = tuple(kind for kind in get_args(Kind) if kind not in NAMES_CLASSES)


def parse_taps(taps: Sequence[str], shares: Sequence[str], classes: int) -> tuple[TapProposal, ...]:
    """One proposal a tap. Raises InvalidPlan for a form, name or weight that cannot be read."""
    weights = _weights(shares)
    proposals: list[TapProposal] = []
    seen = Counter[str]()
    for text in taps:
        if text == "logits":
            proposals.append(TapProposal(text, "logits", classes, weights.get(text, 1.0)))
        elif text == "probabilities":
            proposals.append(TapProposal(text, "probabilities", classes, weights.get(text, 1.0)))
        else:
            kind, path, dimension = _feature(text)
            # As the teacher names them: the first is `hint`, others add their path.
            name = kind if seen[kind] == 0 else f"{kind}.{path or seen[kind] + 1}"
            seen[kind] += 1
            share = weights.get(name, 1.0)
            proposals.append(TapProposal(name, kind, dimension, share, path=path))
    names = [tap.name for tap in proposals]
    if len(set(names)) != len(names):
        raise InvalidPlan(f"--taps names a tap twice: {', '.join(names)}")
    if unknown := sorted(weights.keys() - set(names)):
        raise InvalidPlan(f"--share names {', '.join(unknown)}; the taps are {', '.join(names)}")
    return tuple(proposals)


def alternative_taps(
    taps: Sequence[str], shares: Sequence[str], classes: int
) -> list[tuple[TapProposal, ...]]:
    """Every combination of the alternatives in `taps` and `shares`, each as `parse_taps` reads it.

    Raises InvalidPlan as `parse_taps` does, and where a combination would release nothing.
    """
    found: dict[tuple[TapProposal, ...], None] = {}
    for chosen in itertools.product(*map(_dimensions, taps)):
        for weights in itertools.product(*map(_alternatives, shares)):
            # Read with the hints that are left out, so that the others keep their names.
            texts = [text if text is not None else f"{name}:1" for text, name in chosen]
            read = parse_taps(texts, weights, classes)
            kept = tuple(tap for tap, (text, _) in zip(read, chosen, strict=True) if text)
            if not kept:
                raise InvalidPlan("--taps releases nothing where the hint is left out; add a tap")
            found[kept] = None
    return list(found)


def _alternatives(text: str) -> list[str]:
    """`hint=0.1,0.2` → `hint=0.1`, `hint=0.2`; a form without alternatives stays as it is."""
    name, separator, values = text.rpartition("=")
    return [f"{name}{separator}{value.strip()}" for value in values.split(",")]


def _dimensions(text: str) -> list[tuple[str | None, str]]:
    """(form, what stands before the colon) of each alternative; None for 0 dimensions."""
    name, colon, values = text.rpartition(":")
    numbers = [value.strip() for value in values.split(",")]
    if not colon or len(numbers) == 1:
        return [(text, name)]
    return [(None if number == "0" else f"{name}:{number}", name) for number in numbers]


def _feature(text: str) -> tuple[Kind, str, int]:
    """Kind, path and number of values of a hint or of what is derived from features."""
    name, _, dimension = text.rpartition(":")
    kind, _, path = name.partition("=")
    if kind not in _OF_FEATURES or not (dimension.isdecimal() and int(dimension) > 0):
        raise InvalidPlan(
            f"--taps {text}: write logits, probabilities, or one of {', '.join(_OF_FEATURES)} with "
            "its number of values, such as hint:8 or attention:16; a temperature is planned for by "
            "a lower --confidence"
        )
    if path and kind != "hint":
        raise InvalidPlan(
            f"--taps {text}: only a hint is planned for by its path; write {kind}:VALUES with the "
            "number of values of one answer (16 for attention on a grid of 4 by 4)"
        )
    return cast(Kind, kind), path, int(dimension)


def _weights(shares: Sequence[str]) -> dict[str, float]:
    weights = {}
    for text in shares:
        name, _, weight = text.rpartition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            name = ""
        if not name or not 0.0 < weights[name] < float("inf"):
            raise InvalidPlan(f"--share {text}: write TAP=WEIGHT, such as probabilities=0.9")
    return weights
