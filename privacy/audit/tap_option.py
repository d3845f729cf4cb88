"""The taps of a proposal, from the form in which they are written on a command line.

    logits    probabilities    hint:8    hint=PATH:8

The path is that of `teacher-server train`; the planner needs the number of dimensions only.
"""

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
            proposals.append(TapProposal(name, "hint", dimension, weights.get(name, 1.0)))
    names = [tap.name for tap in proposals]
    if len(set(names)) != len(names):
        raise InvalidPlan(f"--taps names a tap twice: {', '.join(names)}")
    if unknown := sorted(weights.keys() - set(names)):
        raise InvalidPlan(f"--share names {', '.join(unknown)}; the taps are {', '.join(names)}")
    return tuple(proposals)


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
