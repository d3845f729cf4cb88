"""How large and how fast a student is beside its teacher, from raw samples to logits."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch

from ktan.errors import UserError
from ktan.memory_format import channels_last
from ktan.networks.measure import Timing, race
from ktan.precision import Precision, resolve_device, resolve_precision
from student_client.benchmark_networks import (
    Measured,
    Runtime,
    check_runtimes,
    load_measured,
    prepared,
)


@dataclass(frozen=True)
class Speed:
    """One way of running, one batch size."""

    runtime: Runtime
    batch: int
    student: Timing
    """`ratio` is how many times faster it is than the teacher, 1 where there is none."""
    student_bytes: int
    """On disk, in this runtime's own form."""
    teacher: Timing | None
    teacher_bytes: int | None


@dataclass(frozen=True, eq=False)
class Result:
    """What `benchmark` found."""

    student: Measured
    teacher: Measured | None
    speeds: tuple[Speed, ...]
    device: str
    precision: str
    threads: int
    turns: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        content: dict[str, Any] = {"student": _facts(self.student), "teacher": None, "ratios": None}
        if self.teacher is not None:
            content["teacher"] = _facts(self.teacher)
            content["ratios"] = {
                "parameters": self.teacher.size.compression(self.student.size),
                "multiply_adds": self.teacher.size.saving(self.student.size),
                "bytes": self.teacher.bytes / self.student.bytes,
            }
        content["speed"] = [asdict(speed) for speed in self.speeds]
        content["measured_on"] = {
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "turns": self.turns,
            "torch": torch.__version__,
        }
        if any(speed.runtime in ("onnx", "int8") for speed in self.speeds):
            version = importlib.metadata.version("onnxruntime")
            content["measured_on"]["onnxruntime"] = version
        return content


def benchmark(
    student: Path,
    teacher: Path | None,
    *,
    batches: Sequence[int],
    runtimes: Sequence[str] = ("eager",),
    threads: int | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    turns: int = 7,
) -> Result:
    """Counts both, and measures them in turns, batch by batch and runtime by runtime.

    `threads`: cores for torch and onnxruntime; as torch has them when None. `precision`: of eager
    and compile. Raises UserError for what cannot be run here.
    """
    known = get_args(Runtime)
    wrong = [runtime for runtime in runtimes if runtime not in known]
    if wrong or not runtimes:
        raise UserError(f"--runtime is {','.join(wrong) or 'empty'}; give of {', '.join(known)}")
    if not batches or min(batches) < 1 or turns < 1 or (threads is not None and threads < 1):
        raise UserError("--batch, --turns and --threads are whole numbers from 1")
    chosen = cast(tuple[Runtime, ...], tuple(dict.fromkeys(runtimes)))
    where = resolve_device(device)
    used = resolve_precision(where, precision)
    check_runtimes(chosen, where)
    pair = [load_measured(folder) for folder in (teacher, student) if folder is not None]
    if pair[0].input_shape != pair[-1].input_shape:
        raise UserError(
            f"the teacher takes samples of {list(pair[0].input_shape)}, the student of "
            f"{list(pair[-1].input_shape)}; their speeds cannot be compared"
        )
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            speeds = [
                speed
                for runtime in chosen
                for speed in _speeds(
                    pair, runtime, batches, turns, where, used, threads or before,
                    Path(scratch),
                )
            ]  # fmt: skip
    finally:
        torch.set_num_threads(before)
    return Result(
        student=pair[-1],
        teacher=pair[0] if teacher is not None else None,
        speeds=tuple(speeds),
        device=where.type,
        precision=used,
        threads=threads or before,
        turns=turns,
    )


def _speeds(
    pair: Sequence[Measured],
    runtime: Runtime,
    batches: Sequence[int],
    turns: int,
    device: torch.device,
    precision: Precision,
    threads: int,
    scratch: Path,
) -> list[Speed]:
    ready = [
        prepared(
            one, runtime, device=device, precision=precision, threads=threads,
            scratch=scratch / str(number),
        )
        for number, one in enumerate(pair)
    ]  # fmt: skip
    forwards, sizes = zip(*ready, strict=True)
    found = []
    for batch in batches:
        samples = pair[-1].samples(batch).to(device)
        if runtime in ("eager", "compile"):
            samples = channels_last(samples)
        timings = race(forwards, samples, turns)
        found.append(
            Speed(
                runtime,
                batch,
                timings[-1],
                sizes[-1],
                timings[0] if len(pair) == 2 else None,
                sizes[0] if len(pair) == 2 else None,
            )
        )
    return found


def _facts(measured: Measured) -> dict[str, Any]:
    return {
        "network": measured.name,
        "folder": str(measured.folder),
        "parameters": measured.size.parameters,
        "multiply_adds": measured.size.multiply_adds,
        "bytes": measured.bytes,
        "test_accuracy": measured.accuracy,
    }
