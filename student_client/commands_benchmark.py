"""`student-client benchmark`: the student's size and speed beside its teacher's."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from ktan.errors import UserError
from ktan.precision import Precision
from student_client.benchmark import benchmark
from student_client.benchmark_text import benchmark_text
from student_client.connection_options import Flag


def benchmark_student(
    student: Path,
    *,
    teacher: Path | None = None,
    batch: str = "1,64",
    runtime: str = "eager",
    threads: int | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    turns: int = 7,
    json: Flag = False,
) -> None:
    """Measure a student's size and speed, and how many times smaller and faster than a teacher it
    is. Both are measured in turns, from raw samples to logits.

    Parameters
    ----------
    student
        Folder of an exported student, or of a finished run.
    teacher
        Folder of a teacher, or of another student or run.
    batch
        Samples of one pass, with commas between.
    runtime
        With commas between: eager (torch), compile (torch.compile), onnx (onnxruntime), int8
        (onnxruntime, quantised).
    threads
        CPU cores to use; as torch chooses when not given.
    device
        auto (the GPU when there is one), cpu or cuda.
    precision
        Of eager and compile: float32, bf16, or auto for what the trainer takes.
    turns
        How often both are measured.
    json
        Print one JSON object.
    """
    try:
        batches = [int(number) for number in batch.split(",")]
    except ValueError:
        raise UserError(f"--batch is '{batch}'; give numbers with commas between: 1,64") from None
    result = benchmark(
        student,
        teacher,
        batches=batches,
        runtimes=[name.strip() for name in runtime.split(",")],
        threads=threads,
        device=device,
        precision=precision,
        turns=turns,
    )
    if json:
        print(jsonlib.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        print(benchmark_text(result))
