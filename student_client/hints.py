"""Which module of the student imitates which hint of the teacher."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ktan.errors import UserError
from ktan.networks import NetworkSpec, default_hint
from ktan.teacher import AnswerTap


def student_paths(
    student: nn.Module,
    spec: NetworkSpec,
    taps: Mapping[str, AnswerTap],
    given: Mapping[str, str],
) -> dict[str, str]:
    """Hint → the student's module path: as `given`, else the one that suits the hint's shape.

    A vector is imitated by the features before the classifier, a map by the last map before them.
    Raises UserError for a path given to a hint that there is not, and when no map is found.
    """
    hints = {name: tap for name, tap in taps.items() if tap.kind == "hint"}
    for name in given:
        if name not in hints:
            raise UserError(
                f"--hint {name}={given[name]}: the teacher answers no hint '{name}'; "
                f"it answers {', '.join(taps)}"
            )
    paths = dict(given)
    for name, tap in hints.items():
        if name not in paths:
            is_map = len(tap.shape) == 3
            paths[name] = _last_map(student, spec) if is_map else default_hint(spec)
    return paths


def _last_map(student: nn.Module, spec: NetworkSpec) -> str:
    """The last module, in the order of running, that puts out a map of more than one point."""
    maps: list[str] = []

    def watch(path: str, module: nn.Module) -> RemovableHandle:
        def look(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
                maps.append(path)

        return module.register_forward_hook(look)

    handles = [watch(path, module) for path, module in student.named_modules() if path]
    training = student.training
    like = next(student.parameters())
    try:
        with torch.no_grad():
            student.eval()(torch.zeros(1, *spec.input_shape, device=like.device))
    finally:
        student.train(training)
        for handle in handles:
            handle.remove()
    if not maps:
        raise UserError(
            f"{spec.name} has no module that puts out a map; name one with --hint TAP=PATH"
        )
    return maps[-1]
