"""A new student, and its method bound to it; both begin as the seed says, run after run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ktan.data_parts import Rows
from ktan.errors import UserError
from ktan.methods import Binding, Method, Objective
from ktan.networks import NetworkSpec, build, stages_of
from ktan.pairing import pair_taps
from ktan.teacher import AnswerTap


def new_student(spec: NetworkSpec, seed: int) -> nn.Module:
    """With the first weights that belong to the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec)


def blank(taps: Mapping[str, AnswerTap]) -> dict[str, Tensor]:
    """Answers to two samples that say nothing, for the rehearsal."""
    return {name: torch.zeros(2, *tap.shape) for name, tap in taps.items()}


def bind_method(
    method: Method,
    student: nn.Module,
    spec: NetworkSpec,
    taps: Mapping[str, AnswerTap],
    given: Mapping[str, tuple[str, ...]],
    values: Mapping[str, Rows],
    seed: int,
) -> Objective:
    """The method bound to the student; `given` paths go before paired ones.

    Raises UserError where they do not fit.
    """
    stages = stages_of(spec)
    paths = pair_taps(taps, student, spec.input_shape, stages, given)
    binding = Binding(student, spec.input_shape, spec.classes, taps, paths, values, stages)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return method.build(binding)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{error}; name the student's module with --hint TAP=PATH") from error
