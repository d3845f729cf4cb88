"""What a finished run leaves behind: the student with its card, the curves, and the figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from ktan.curves import plot_curves
from ktan.durable import write_durably
from ktan.evaluation import accuracy
from ktan.history import History
from ktan.methods import Method
from ktan.methods.combination import method_options
from ktan.networks import NetworkSpec, count_parameters
from ktan.precision import resolve_device
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


def write_results(
    out: Path, public: PublicData, taught: Taught, trainer: TrainerOptions, seconds: float
) -> dict[str, Any]:
    """Measures the student as it stands, writes all there is, and returns `result.json`'s content.

    The accuracy is the last step's on the whole test part; no step was chosen by it.
    """
    measured = None
    if len(public.test):
        measured = accuracy(
            taught.student.to(resolve_device(trainer.device)),
            public.test,
            public.test_labels,
            normalise=public.normalisation,
            precision=trainer.precision,
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
        ),
    )
    plot_curves(history, out / CURVES, f"{taught.method.name}: {origin.label}")
    result = {
        "label": origin.label,
        "kind": origin.kind,
        "accuracy": measured,
        "test_samples": len(public.test),
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


def _answers_json(
    public: PublicData, chosen: Chosen | None, answers: Answers | None
) -> dict[str, Any] | None:
    if chosen is None or answers is None:
        return None
    return {
        "samples": len(chosen.rows),
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
    hits = (opinions[0].argmax(dim=1) == truth) & known
    return float(hits.sum() / known.sum())
