"""The demo's two settings: what an engineer would type, kept in one place.

100 public labels and cross-entropy as the local loss are part of the setting, named as such: with
250 labels, or with a consistency loss on the unlabelled samples, the student on its own is nearly
as good and the private teacher no longer pays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

EPSILON = 4.0
DELTA = 1e-5
LABELLED = 100
QUERIES = 300

_DATA = ["--dataset", "glyphs", "--size", "72000", "--labelled", str(LABELLED)]
_STUDENT = ["--queries", str(QUERIES), "--augment", "shift", "--steps", "1000"]


@dataclass(frozen=True)
class Setting:
    """Options of each command, by what they are for."""

    mode: str
    data: list[str]
    plan: list[str]
    teacher: list[str]
    serve: list[str]
    student: list[str]
    alone: bool = True
    """Whether the student is also trained on its own: not possible without public labels."""
    also: Mapping[str, list[str]] = field(default_factory=dict)
    """Further students of the same service, by name: their options behind those of `student`. All
    share one store of answers, so that what the first one paid for costs the next ones nothing."""


ENSEMBLE = Setting(
    mode="ensemble",
    data=_DATA,
    plan=["--epsilon", str(EPSILON), "--delta", str(DELTA)],
    # 200 teachers on 300 records each; a hint of 8 dimensions with a tenth of the budget. The
    # default of 25 epochs is worth a point more, and half a minute.
    teacher=[
        "--teachers",
        "200",
        "--epochs",
        "15",
        "--taps",
        "probabilities",
        "--taps",
        "hint=features:8",
    ],
    serve=["--answers", str(QUERIES), "--share", "probabilities=0.9", "--share", "hint=0.1"],
    student=_STUDENT,
)

DP_SGD = Setting(
    mode="dp-sgd",
    data=_DATA,
    # The whole of the budget goes to one training run: its answers are free, its hints whole.
    plan=["--epsilon", str(EPSILON), "--delta", str(DELTA), "--training-epsilon", str(EPSILON)],
    teacher=["--taps", "probabilities", "--taps", "hint=features"],
    serve=[],
    student=_STUDENT,
)
