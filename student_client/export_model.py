"""A student in the form that a device runs: ONNX, int8 ONNX, or a program of torch.export.

The folder holds one model file and `card.json`: the student's card, and under `export` what the
file takes, puts out, and was checked by. Normalisation is inside the model: it takes samples as
they come (`ktan.networks.deployed`).
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from ktan.durable import write_durably
from ktan.errors import UserError
from ktan.networks.deployed import Deployed
from student_client.attempts import attempt
from student_client.export import chosen_student, require_new
from student_client.export_onnx import (
    LOGITS,
    OPSET,
    SAMPLES,
    OnnxModel,
    quantise,
    require_onnx,
    write_onnx,
)
from student_client.public_data import PublicData
from student_client.student_card import CARD, StudentCard, sha256_of

Format = Literal["onnx", "int8", "torch-export"]
ONNX_FILE: Final = "student.onnx"
PROGRAM_FILE: Final = "student.pt2"
CHECKED: Final = 256
"""Samples on which the model's logits are compared with torch's."""
_TOLERANCE: Final = 1e-3
"""Of the largest logit: float32 in another order differs by some 1e-6 of it."""
_CHUNK: Final = 100

Model = Callable[[Tensor], Tensor]
"""Raw samples → logits."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    card: StudentCard
    facts: dict[str, Any]
    """The card's `export` part."""

    def to_json(self) -> dict[str, Any]:
        """What `card.json` holds."""
        return {**self.card.to_json(), "export": self.facts}


def export_model(
    folder: Path,
    out: Path,
    kind: Format,
    load: Callable[[StudentCard], PublicData],
    *,
    exit_number: int | None = None,
    calibration: int = 512,
) -> Exported:
    """Writes the student of `folder` to `out`, once it answers as it does in torch.

    `load`: the student's public data; samples without labels check and calibrate, the test part
    measures. `exit_number`: as in `export_student`. `calibration`: samples for int8. Raises
    UserError when the network cannot be exported, or answers differently.
    """
    if kind not in get_args(Format):
        raise UserError(
            f"no format is called '{kind}'; choose student, {', '.join(get_args(Format))}"
        )
    if kind != "torch-export":
        require_onnx()
    if calibration < 1:
        raise UserError(f"--calibration is {calibration}; at least one sample is needed")
    require_new(out)
    student, card = chosen_student(folder, exit_number)
    public = load(card)
    samples = max(public.unlabelled, public.labelled, public.test, key=len)
    if not len(samples):
        raise UserError(f"{public.name} has no public samples to check the model on")
    # Never the test part, which int8 is measured on.
    calibrating = max(public.unlabelled, public.labelled, key=len)[:calibration]
    if kind == "int8" and not len(calibrating):
        raise UserError(
            f"{public.name} has no public samples outside its test part to calibrate int8 on; "
            "give --unlabelled or --labelled"
        )
    shape = card.network.input_shape
    deployed = Deployed([student], card.normalisation, shape)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / (PROGRAM_FILE if kind == "torch-export" else ONNX_FILE)
        if kind == "torch-export":
            facts = _program(deployed, card, samples, made)
        else:
            facts = _onnx(deployed, card, samples, made)
        if kind == "int8":
            made, facts["quantisation"] = _int8(made, calibrating, card, public)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, out / made.name)
    exported = Exported(
        card,
        {
            "format": kind,
            "file": made.name,
            "sha256": sha256_of(out / made.name),
            "bytes": (out / made.name).stat().st_size,
            "input": _input_facts(card),
            "output": {
                "name": LOGITS, "dtype": "float32", "shape": ["batch", len(card.classes)],
            },
            **facts,
        },
    )  # fmt: skip
    text = json.dumps(exported.to_json(), indent=2, ensure_ascii=False) + "\n"
    write_durably(out / CARD, text.encode())
    return exported


def model_accuracy(model: Model, samples: Tensor, labels: Tensor) -> float:
    """Share of raw samples [n, ...] whose largest logit is their label's, in [0, 1]; n >= 1."""
    hits = 0
    for chunk, own in zip(samples.split(_CHUNK), labels.split(_CHUNK), strict=True):
        hits += int((model(chunk).argmax(dim=1) == own).sum())
    return hits / len(samples)


def _onnx(deployed: nn.Module, card: StudentCard, samples: Tensor, path: Path) -> dict[str, Any]:
    failure = _failure("onnx", card)
    attempt(failure, lambda: write_onnx(deployed, _example(card), path))
    model = attempt(failure, lambda: OnnxModel(path))
    runtime = f"onnxruntime {importlib.metadata.version('onnxruntime')}"
    return {
        "made_with": {"torch": torch.__version__, "opset": OPSET},
        "checked": _compared(deployed, model, samples, runtime),
    }


def _program(deployed: nn.Module, card: StudentCard, samples: Tensor, path: Path) -> dict[str, Any]:
    def write() -> None:
        batch = torch.export.Dim("batch")
        program = torch.export.export(
            deployed,
            (_example(card),),
            dynamic_shapes={SAMPLES: {0: batch}},
            # An early exit ends the network's pass by an exception, which only dynamo follows.
            strict=card.cut_at is not None,
        )
        torch.export.save(program, path)

    failure = _failure("torch-export", card)
    attempt(failure, write)
    # torch.export.load may unpickle: this file is the one that was just written.
    again = attempt(failure, lambda: torch.export.load(path).module())
    return {
        "made_with": {"torch": torch.__version__},
        "checked": _compared(deployed, again, samples, f"torch {torch.__version__}, loaded again"),
    }


def _int8(
    float_model: Path, samples: Tensor, card: StudentCard, public: PublicData
) -> tuple[Path, dict[str, Any]]:
    path = float_model.with_name(f"int8-{float_model.name}")
    failure = _failure("int8", card)
    attempt(failure, lambda: quantise(float_model, samples, path))
    quantised = attempt(failure, lambda: OnnxModel(path))
    facts: dict[str, Any] = {
        "scheme": "int8 weights (a scale a channel) and activations (a scale and a zero point a "
        "tensor), QDQ",
        "calibration_samples": len(samples),
        "float_bytes": float_model.stat().st_size,
        "test_samples": len(public.test),
        "float_accuracy": None,
        "accuracy": None,
    }
    if len(public.test):
        for name, model in (("float_accuracy", OnnxModel(float_model)), ("accuracy", quantised)):
            facts[name] = model_accuracy(model, public.test, public.test_labels)
    return path.rename(float_model), facts


@torch.no_grad()
def _compared(deployed: nn.Module, model: Model, samples: Tensor, runtime: str) -> dict[str, Any]:
    """Raises UserError where the two do not agree; the first sample goes alone, the rest together:
    a model that took one batch size only would fail here."""
    chosen = samples[:CHECKED]
    largest = difference = 0.0
    for part in (chosen[:1], chosen[1:]):
        if len(part):
            expected = deployed(part)
            difference = max(difference, float((model(part) - expected).abs().max()))
            largest = max(largest, float(expected.abs().max()))
    if not difference <= _TOLERANCE * max(1.0, largest):
        raise UserError(
            f"{runtime} answers {difference:.2g} apart from torch, of logits up to {largest:.3g}; "
            "nothing was written"
        )
    return {
        "runtime": runtime,
        "samples": len(chosen),
        "largest_difference": difference,
        "largest_logit": largest,
    }


def _failure(kind: Format, card: StudentCard) -> str:
    return f"{card.network.name} cannot be exported as {kind}"


def _example(card: StudentCard) -> Tensor:
    """Two samples: torch takes a size of one for a constant."""
    return torch.zeros(2, *card.network.input_shape, dtype=getattr(torch, card.input_dtype))


def _input_facts(card: StudentCard) -> dict[str, Any]:
    values = [0, 255] if card.input_dtype == "uint8" else None
    return {
        "name": SAMPLES,
        "dtype": card.input_dtype,
        "shape": ["batch", *card.network.input_shape],
        "range": values,
        "normalisation": "inside the model",
    }
