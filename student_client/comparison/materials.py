"""What students learn from: public samples with labels, and answers of a local or remote teacher.

With a private service all students see the same batches of labelled and of answered samples, the
student alone included: what differs is the loss. Without one a local teacher, or nobody, stands
beside every labelled sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ktan.methods import Method
from ktan.networks import NetworkSpec
from ktan.spool import taken
from ktan.taps import Tap
from ktan.teacher import AnswerTap
from ktan.training_data import TrainingData
from student_client.comparison.lessons import Material
from student_client.comparison.local_teacher import ComparedTeacher
from student_client.public_data import PublicData
from student_client.queries import Chosen
from student_client.screen import Screen
from student_client.sources import Answers

_AT_HAND = 512
"""Answers of a local teacher from which the scales of hints are measured."""


def samples_of(public: PublicData, chosen: Chosen | None) -> TrainingData:
    """The batches of every student, without any answer.

    `chosen`: what a private service is asked about; None without one.
    """
    if chosen is None:
        return TrainingData(
            labelled=public.labelled[:0],
            labels=public.labels[:0],
            answered=public.labelled,
            answered_labels=public.labels,
        )
    return TrainingData(
        labelled=public.labelled,
        labels=public.labels,
        answered=taken(public.unlabelled, chosen.rows),
    )


def alone_material(public: PublicData, chosen: Chosen | None) -> Material:
    """For students that ask nobody."""
    return Material(samples_of(public, chosen))


def local_offer(
    public: PublicData, teacher: ComparedTeacher, methods: Iterable[Method], student: NetworkSpec
) -> Material:
    """What a local teacher will answer: what any of the methods looks at, and no more."""
    stages = teacher.live.stages
    wanted = {tap.name: tap for method in methods for tap in method.teacher_taps(stages)}
    teacher.live.read(list(wanted.values()), student)
    return Material(samples_of(public, None), teacher.live.taps, stages)


def local_material(
    public: PublicData,
    chosen: Chosen | None,
    teacher: ComparedTeacher,
    offer: Material,
    folder: Path,
    screen: Screen,
) -> Material:
    """A local teacher beside every student: each augmented view is answered as it is drawn.

    Students that ask nobody may sit in, too. Layers that give the teacher's maps the student's
    shape are trained first, on all public samples, which the screen shows, and kept in `folder`.
    """
    samples = torch.cat([public.labelled, public.unlabelled])

    def watch(tap: Tap, steps: int) -> Iterator[int]:
        screen.fact(
            "Layer",
            f"{tap.text} of the local teacher is trained, once for all students: {steps:,} steps "
            f"on {len(samples):,} public samples",
        )
        return screen.stepping(steps)

    teacher.live.prepare(
        samples,
        torch.cat([public.labels, public.labels.new_full((len(public.unlabelled),), -1)]),
        folder=folder,
        watch=watch,
    )
    data = samples_of(public, chosen)
    assert data.answered is not None
    return replace(
        offer,
        data=replace(data, teacher=teacher.live),
        at_hand=teacher.live.answer(data.answered[:_AT_HAND]),
        answers=Answers({}, teacher.provenance(len(data.answered)), charged=0),
    )


def offered(public: PublicData, taps: Mapping[str, AnswerTap]) -> Material:
    """What a service says that it answers, before it was asked anything."""
    return Material(samples_of(public, None), taps)


def remote_material(
    public: PublicData, chosen: Chosen, offer: Material, answers: Answers
) -> Material:
    """What the service has answered."""
    return replace(
        offer,
        data=replace(samples_of(public, chosen), answers=dict(answers.values)),
        at_hand=answers.values,
        answers=answers,
        chosen=chosen,
    )


def with_unlabelled(material: Material, samples: Tensor) -> Material:
    """The same with unlabelled samples beside it, for methods that look at views of them."""
    return replace(material, data=replace(material.data, unlabelled=samples))
