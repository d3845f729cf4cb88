"""A method bound to a student in one line, for tests."""

from collections.abc import Mapping

from torch import Tensor, nn

from ktan.methods import Binding, Method, Objective
from ktan.networks import NetworkStages
from ktan.teacher import AnswerTap


def bind(
    method: Method,
    student: nn.Module,
    shape: tuple[int, ...],
    taps: Mapping[str, AnswerTap],
    paths: Mapping[str, str | tuple[str, ...]],
    answers: Mapping[str, Tensor],
    *,
    classes: int = 3,
    stages: NetworkStages | None = None,
) -> Objective:
    """`paths`: a tap's one path may stand alone."""
    whole = {name: (path,) if isinstance(path, str) else path for name, path in paths.items()}
    binding = Binding(
        student, shape, classes, taps, whole, answers, stages or NetworkStages((), (), "")
    )
    return method.build(binding)
