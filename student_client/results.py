"""What a finished run leaves behind: the student with its card, the curves, and the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ktan.curves import plot_curves
from ktan.durable import write_durably
from ktan.evaluation import accuracy
from ktan.history import History
from ktan.methods import Method
from ktan.methods.combination import method_options
from ktan.networks import NetworkSpec, count_parameters, multiply_adds
from ktan.networks.exits import ExitHead, exit_multiply_adds
from ktan.parts import parts
from ktan.precision import resolve_device
from ktan.tap_reader import read_taps
from ktan.trainer import TrainerOptions
from student_client.provenance import alone
from student_client.public_data import PublicData
from student_client.queries import SELECTION, Chosen
from student_client.sources import Answers
from student_client.student_card import StudentCard, write_student

RESULT: Final = "result.json"
CURVES: Final = "curves.png"
STUDENT: Final = "student"


@dataclass(frozen=True, eq=False)
class Taught:
    """A student after its last step, and how it came about."""

    student: nn.Module
    spec: NetworkSpec
    method: Method
    history: History
    chosen: Chosen | None
    answers: Answers | None
    exits: Sequence[ExitHead] = ()
    """Early exits that the method has trained, in order of depth."""


def write_results(
    out: Path, public: PublicData, taught: Taught, trainer: TrainerOptions, seconds: float
) -> dict[str, Any]:
    """Measures the student as it stands, writes all there is, and returns `result.json`'s content.

    The accuracy is the last step's on the whole test part, which nothing has looked at before.
    """
    measured = None
    of_exits: list[float] = []
    if len(public.test):
        device = resolve_device(trainer.device)
        networks = [
            taught.student,
            *(_ExitOf(taught.student, head).eval() for head in taught.exits),
        ]
        measured, *of_exits = (
            accuracy(
                network.to(device),
                public.test,
                public.test_labels,
                normalise=public.normalisation,
                precision=trainer.precision,
            )
            for network in networks
        )
    origin = alone() if taught.answers is None else taught.answers.provenance
    history = taught.history
    steps = max((points[-1][0] for points in history.curves.values()), default=0)
    write_student(
        out / STUDENT,
        taught.student,
        StudentCard(
            dataset=public.name,
            classes=public.classes,
            input_dtype=public.input_dtype,
            network=taught.spec,
            normalisation=public.normalisation,
            method=taught.method.name,
            method_options=method_options(taught.method),
            seed=trainer.seed,
            steps=steps,
            test_accuracy=measured,
            test_samples=len(public.test),
            privacy=origin,
            weights_sha256="",
            validation_samples=len(public.validation),
            exits_test_accuracy=tuple(of_exits),
        ),
        taught.exits,
    )
    plot_curves(history, out / CURVES, f"{taught.method.name}: {origin.label}")
    result = {
        "label": origin.label,
        "kind": origin.kind,
        "accuracy": measured,
        "test_samples": len(public.test),
        "validation_samples": len(public.validation),
        "exits": _exits_json(taught, of_exits, measured),
        "promise": None if origin.promise is None else origin.promise.to_json(),
        "epsilon_spent": origin.epsilon_spent,
        "answers": _answers_json(public, taught.chosen, taught.answers),
        "privacy": origin.to_json(),
        "method": taught.method.name,
        "method_options": method_options(taught.method),
        "network": taught.spec.to_json(),
        "parameters": count_parameters(taught.student),
        "dataset": public.name,
        "split": public.split.to_json(),
        "seed": trainer.seed,
        "steps": steps,
        "last": {curve: history.last(curve) for curve in history.curves},
        "seconds": round(seconds, 1),
        "student": str(out / STUDENT),
        "curves": str(out / CURVES),
    }
    write_durably(out / RESULT, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
    return result


class _ExitOf(nn.Module):
    """A student's logits at an exit, by the same tap that training looked through."""

    def __init__(self, student: nn.Module, head: ExitHead) -> None:
        super().__init__()
        self.student, self.head = student, head

    def forward(self, samples: Tensor) -> Tensor:
        path = self.head.spec.path
        with read_taps(self.student, [path]) as read:
            logits: Tensor = self.head(read(samples)[1][path])[0]
        return logits


def _exits_json(
    taught: Taught, accuracies: Sequence[float], whole: float | None
) -> list[dict[str, Any]] | None:
    """Every exit with its accuracy and cost, the student's own end last; None without any."""
    if not taught.exits:
        return None
    found: list[dict[str, Any]] = [
        {
            "exit": number,
            "path": head.spec.path,
            "accuracy": accuracies[number - 1] if accuracies else None,
            "multiply_adds": exit_multiply_adds(taught.spec, head.spec),
        }
        for number, head in enumerate(taught.exits, start=1)
    ]
    last = {"path": None, "accuracy": whole, "multiply_adds": multiply_adds(taught.spec)}
    return [*found, {"exit": len(found) + 1, **last}]


def _answers_json(
    public: PublicData, chosen: Chosen | None, answers: Answers | None
) -> dict[str, Any] | None:
    if chosen is None or answers is None:
        return None
    return {
        "samples": len(chosen.rows),
        "rounds": list(chosen.rounds),
        "charged": answers.charged,
        "charge": answers.provenance.charge,
        "selection": SELECTION,
        "selection_sha256": chosen.sha256,
        "label_accuracy": label_accuracy(public, chosen, answers),
    }


def label_accuracy(public: PublicData, chosen: Chosen, answers: Answers) -> float | None:
    """How often the largest coordinate of an answer is the public sample's true class.

    The labels of these samples are hidden from training; None where the data has none of them, or
    the teacher answers neither probabilities nor logits.
    """
    opinions = [answers.values[tap] for tap in ("probabilities", "logits") if tap in answers.values]
    truth = public.unlabelled_labels[chosen.rows]
    known = truth >= 0
    if not opinions or not bool(known.any()):
        return None
    told = torch.cat([read.argmax(dim=1) for (read,) in parts(opinions[0])])
    hits = (told == truth) & known
    return float(hits.sum() / known.sum())
