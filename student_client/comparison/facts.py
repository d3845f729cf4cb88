"""Sizes and speeds of a comparison's pair of networks."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ktan.networks import NetworkSpec, build
from ktan.networks.measure import SpeedUp, ready, size_of, speed_up
from ktan.precision import Precision, resolve_device, resolve_precision
from student_client.comparison.files import JSON
from student_client.comparison.local_teacher import ComparedTeacher
from student_client.comparison.options import Comparison
from student_client.comparison.table import Facts, TeacherFacts
from student_client.public_data import PublicData


def facts_of(
    comparison: Comparison, public: PublicData, spec: NetworkSpec, local: ComparedTeacher | None
) -> Facts:
    """Counts, and measures the speed-up once for a comparison: its table holds it from then on."""
    teacher = None
    if local is not None:
        device = resolve_device(comparison.trainer.device)
        precision = resolve_precision(device, comparison.trainer.precision)
        measured = _recorded(comparison.out)
        if measured is None:
            batch = comparison.trainer.answered_batch
            measured = (
                _measure(local, spec, device, precision, batch),
                f"{device.type}, {precision}",
            )
        teacher = TeacherFacts(local.name, local.size, local.accuracy, *measured)
    return Facts(
        dataset=public.name,
        test_samples=len(public.test),
        network=spec.name,
        student=size_of(spec),
        seeds=comparison.seeds,
        teacher=teacher,
    )


def _measure(
    local: ComparedTeacher,
    spec: NetworkSpec,
    device: torch.device,
    precision: Precision,
    batch: int,
) -> SpeedUp:
    def teacher(samples: Tensor) -> None:
        for network in local.live.networks:
            network(samples)

    student = ready(build(spec), device)
    return speed_up(
        teacher, student, spec.input_shape, device=device, precision=precision, batch=batch
    )


def _recorded(out: Path) -> tuple[SpeedUp, str] | None:
    """What an earlier table of this comparison says."""
    path = out / JSON
    if not path.exists():
        return None
    teacher = json.loads(path.read_text(encoding="utf-8"))["teacher"]
    if teacher is None or teacher["speed"] is None:
        return None
    return SpeedUp(**teacher["speed"]), str(teacher["measured_on"])
