"""Binds a method to a network of one's own, for a loop of one's own.

method = distil(KTAN(), student, teacher, samples, answers)
optimiser = torch.optim.SGD([*student.parameters(), *method.parameters()], lr=0.05)
for samples, labels, answers in loader:
    loss = method(student, (samples, labels), answers)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ktan.data import Normalisation
from ktan.distiller import Distiller
from ktan.errors import UserError
from ktan.methods import Binding, Method, Objective
from ktan.methods.combination import parse_method
from ktan.methods.needs import require, serving
from ktan.networks import NetworkStages, stages_within
from ktan.networks.foreign import without_inplace
from ktan.pairing import pair_taps
from ktan.taps import Tap
from ktan.teacher import AnswerTap, Teacher
from ktan.teachers.live import LiveTeacher
from ktan.teachers.tsl import shape_in

__all__ = ["Distiller", "distil"]

_AT_HAND = 512
"""Answers of a live teacher from which the scales of hints are measured."""


def distil(
    method: Method | str,
    student: nn.Module,
    teacher: Teacher | nn.Module | Sequence[nn.Module] | None,
    samples: Tensor,
    answers: Mapping[str, Tensor] | None = None,
    *,
    labels: Tensor | None = None,
    paths: Mapping[str, str | Sequence[str]] | None = None,
    steps: int | None = None,
    normalise: Normalisation | None = None,
    opponent_learning_rate: float = 3e-3,
    seed: int = 0,
) -> Distiller:
    """A method bound to `student`, whose every call gives the student's loss on a batch.

    `method`: `KTAN(hint_weight=1)`, or a name: `"ktan+byot"`.
    `teacher`: one that answers each batch as it comes, a network of this process (several of one
    architecture: their mean) or a `LiveTeacher`; or any other `Teacher`, of which only the taps are
    looked at: its answers come with each batch, since each may cost. None for a method that asks
    nobody.
    `samples`: [n, ...] public samples as the loop will bring them. Their shape is the network's
    input, and on them the scales of hints are measured.
    `answers`: tap → float32 [n, ...], the teacher's to these samples. The method looks at the taps
    that they name, and each batch brings these. A network of this process is asked here.
    `labels`: int64 [n], for a teacher-to-student layer that is trained here (`ktan`); without them
    on the teacher's own opinion.
    `paths`: tap → the student's module (two for products) that imitates it, where `ktan.pairing`
    should not choose.
    `steps`, `normalise`, `opponent_learning_rate`, `seed`: see `Distiller`; `seed` also draws the
    first weights of what the method adds.

    Activations of `student` that overwrite their input no longer do. Raises UserError naming what
    the method needs and the teacher does not give.
    """
    bound = parse_method(method, {}) if isinstance(method, str) else method
    shape = tuple(samples.shape[1:])
    without_inplace(student)
    stages, classes = stages_within(student, shape)
    live = _live(teacher, shape)
    taps: Mapping[str, AnswerTap] = {}
    teacher_stages = None
    if live is not None:
        if not live.taps:
            live.read(_fitted(bound.teacher_taps(live.stages), student, stages, shape))
            teacher_stages = live.stages
        live.prepare(samples, torch.full((len(samples),), -1) if labels is None else labels)
        taps = live.taps
        answers = answers or live.answer(samples[:_AT_HAND])
    elif teacher is not None:
        assert not isinstance(teacher, nn.Module | Sequence)
        require(bound.needs, teacher.taps, bound.name)
        at_hand = {n: tap for n, tap in teacher.taps.items() if not answers or n in answers}
        taps = serving(bound.needs, at_hand)
    _check(taps, classes, answers or {})
    given = {
        tap: (chosen,) if isinstance(chosen, str) else tuple(chosen)
        for tap, chosen in (paths or {}).items()
    }
    pairs = pair_taps(taps, student, shape, stages, given)
    binding = Binding(student, shape, classes, taps, pairs, answers or {}, stages, teacher_stages)
    device = next(student.parameters(), torch.empty(0)).device
    return Distiller(
        _built(bound, binding, seed).to(device),
        taps,
        live,
        steps=steps,
        normalise=normalise,
        opponent_learning_rate=opponent_learning_rate,
        seed=seed,
    )


def _live(
    teacher: Teacher | nn.Module | Sequence[nn.Module] | None, shape: tuple[int, ...]
) -> LiveTeacher | None:
    if isinstance(teacher, LiveTeacher):
        return teacher
    if isinstance(teacher, nn.Module):
        return LiveTeacher.around([teacher], shape)
    if isinstance(teacher, Sequence):
        return LiveTeacher.around(teacher, shape)
    return None


def _fitted(
    taps: Sequence[Tap], student: nn.Module, stages: NetworkStages, shape: tuple[int, ...]
) -> list[Tap]:
    """A teacher-to-student layer without a shape in the student's."""
    return [
        replace(tap, shape=shape_in(student, shape, stages))
        if tap.kind == "tsl" and not tap.shape
        else tap
        for tap in taps
    ]


def _check(taps: Mapping[str, AnswerTap], classes: int, answers: Mapping[str, Tensor]) -> None:
    for tap in taps.values():
        if tap.kind in ("logits", "probabilities"):
            if tap.shape != (classes,):
                raise UserError(
                    f"the teacher tells {tap.shape[0]} classes apart, the student {classes}; give "
                    "the student as many outputs"
                )
        elif tap.name not in answers:
            raise UserError(
                f"on answers of {tap.name} the scale of the hint is measured; give answers=, those "
                "to `samples`"
            )


def _built(method: Method, binding: Binding, seed: int) -> Objective:
    """The method's own modules begin as the seed says, run after run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.build(binding)
