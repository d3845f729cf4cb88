"""What a benchmark measures: a network with its weights, and the ways to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor

from ktan.cpp_compiler import require_compiler
from ktan.errors import UserError
from ktan.networks import NetworkSpec, count_parameters, multiply_adds
from ktan.networks.deployed import Deployed
from ktan.networks.exits import exit_multiply_adds
from ktan.networks.measure import Forward, Size, ready
from ktan.precision import Precision, autocast
from ktan.teachers import FILES, TeacherCard
from ktan.teachers.folder import WEIGHTS_FILE
from ktan.teachers.live import LiveTeacher
from student_client.attempts import attempt, reason
from student_client.export_onnx import OnnxModel, quantise, require_onnx, write_onnx
from student_client.student_card import WEIGHTS, read_student, student_folder

Runtime = Literal["eager", "compile", "onnx", "int8"]
CPU: Final = torch.device("cpu")
_CALIBRATION: Final = 64


@dataclass(frozen=True, eq=False)
class Measured:
    """A student or a teacher, ready to be run."""

    name: str
    """Its network, and how many of them answer together."""
    folder: Path
    deployed: Deployed
    size: Size
    bytes: int
    """Of its weights on disk."""
    accuracy: float | None
    """On test samples, as its card says; None where it says nothing."""
    input_shape: tuple[int, ...]
    input_dtype: torch.dtype

    def samples(self, count: int) -> Tensor:
        """Raw samples of its kind, the same each time: what they show is nothing to a clock."""
        generator = torch.Generator().manual_seed(0)
        shape = (count, *self.input_shape)
        if self.input_dtype == torch.uint8:
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return torch.randn(shape, generator=generator)


def load_measured(folder: Path) -> Measured:
    """An exported student, a finished run, or a teacher's folder. Raises UserError for neither."""
    if all((folder / name).exists() for name in FILES):
        return _teacher(folder)
    student, card = read_student(folder)
    work = multiply_adds(card.network)
    if card.cut_at is not None:
        work = exit_multiply_adds(card.network, card.cut_at)
    return Measured(
        name=card.network.name,
        folder=folder,
        deployed=Deployed([student], card.normalisation, card.network.input_shape),
        size=Size(count_parameters(student), work),
        bytes=(student_folder(folder) / WEIGHTS).stat().st_size,
        accuracy=card.test_accuracy,
        input_shape=card.network.input_shape,
        input_dtype=getattr(torch, card.input_dtype),
    )


def _teacher(folder: Path) -> Measured:
    card = TeacherCard.read(folder)
    networks = LiveTeacher.load(folder, device=CPU, precision="float32").networks
    spec: NetworkSpec = card.network
    size = Size(count_parameters(networks[0]), multiply_adds(spec)).times(len(networks))
    return Measured(
        name=spec.name if card.teachers == 1 else f"{card.teachers:,} × {spec.name}",
        folder=folder,
        deployed=Deployed(networks, card.normalisation, card.input_shape),
        size=size,
        bytes=(folder / WEIGHTS_FILE).stat().st_size,
        accuracy=None,
        input_shape=tuple(card.input_shape),
        input_dtype=card.torch_dtype,
    )


def check_runtimes(runtimes: tuple[Runtime, ...], device: torch.device) -> None:
    """Raises UserError for one that this machine cannot run."""
    if {"onnx", "int8"} & set(runtimes):
        require_onnx()
        if device.type != "cpu":
            raise UserError("onnx and int8 are measured on the CPU; give --device cpu")
    if "compile" in runtimes and device.type == "cpu":
        require_compiler("torch.compile", "leave compile out of --runtime")


def prepared(
    measured: Measured,
    runtime: Runtime,
    *,
    device: torch.device,
    precision: Precision,
    threads: int,
    scratch: Path,
) -> tuple[Forward, int]:
    """Raw samples on `device` → logits, and the bytes that this way of running keeps on disk.

    `scratch`: a folder of the network's own for what has to be written. Raises UserError for a
    network that this way of running does not take; for compile, the forward pass does.
    """
    failure = f"{measured.name} cannot be run by {runtime}"
    if runtime in ("onnx", "int8"):
        path = scratch / "float.onnx"
        if not path.exists():
            scratch.mkdir(parents=True, exist_ok=True)
            attempt(failure, lambda: write_onnx(measured.deployed, measured.samples(2), path))
        if runtime == "int8":
            # Ranges of random samples: other scales, the same operations.
            samples, quantised = measured.samples(_CALIBRATION), scratch / "int8.onnx"
            attempt(failure, lambda: quantise(path, samples, quantised))
            path = quantised
        return attempt(failure, lambda: OnnxModel(path, threads)), path.stat().st_size
    run: Callable[[Tensor], Tensor] = ready(measured.deployed, device)
    if runtime == "compile":
        run = torch.compile(run, dynamic=False)

    def forward(samples: Tensor) -> Tensor:
        try:
            with autocast(device, precision):
                return run(samples)
        except Exception as error:
            if runtime != "compile" or not type(error).__module__.startswith("torch."):
                raise
            raise UserError(f"{failure}: {reason(error)}") from error

    return forward, measured.bytes
