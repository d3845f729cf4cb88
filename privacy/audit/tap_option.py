"""The taps of a proposal, from the form in which they are written on a command line.

    logits    probabilities    hint:8    hint=PATH:8    hint=PATH:0,4,8

Taps that are repeated are released together; numbers after a comma are alternatives of a grid, 0
for a release without this hint.
The path is that of `teacher-server train`; the planner needs it for a simulation only.
"""

import itertools
from collections.abc import Sequence

from privacy.audit.proposal import TapProposal
from privacy.errors import InvalidPlan


def parse_taps(taps: Sequence[str], shares: Sequence[str], classes: int) -> tuple[TapProposal, ...]:
    """One proposal a tap. Raises InvalidPlan for a form, name or weight that cannot be read."""
    weights = _weights(shares)
    proposals: list[TapProposal] = []
    hints = 0
    for text in taps:
        if text == "logits":
            proposals.append(TapProposal(text, "logits", classes, weights.get(text, 1.0)))
        elif text == "probabilities":
            proposals.append(TapProposal(text, "probabilities", classes, weights.get(text, 1.0)))
        else:
            path, dimension = _hint(text)
            # As the teacher names them: the first is `hint`, others add their path.
            name = "hint" if hints == 0 else f"hint.{path or hints + 1}"
            hints += 1
            share = weights.get(name, 1.0)
            proposals.append(TapProposal(name, "hint", dimension, share, path=path))
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


def _hint(text: str) -> tuple[str, int]:
    name, _, dimension = text.rpartition(":")
    kind, _, path = name.partition("=")
    if kind != "hint" or not (dimension.isdecimal() and int(dimension) > 0):
        raise InvalidPlan(
            f"--taps {text}: write logits, probabilities, or a hint with its number of dimensions, "
            "such as hint:8; a temperature is planned for by a lower --confidence"
        )
    return path, int(dimension)


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
