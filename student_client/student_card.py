"""An exported student: weights and a card that says what it is and under which promise it learnt.

A student's folder holds `card.json` and `weights.safetensors`, and `exits.safetensors` where it was
taught with early exits. The card is what must travel with
the weights: the network and normalisation that make them usable, and the privacy of the answers
that they were trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from torch import nn

from ktan.checkpoint import load_weights, save_weights
from ktan.data import Normalisation
from ktan.durable import write_durably
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.networks.exits import ExitHead, ExitSpec, build_exit
from student_client.provenance import Provenance

CARD: Final = "card.json"
WEIGHTS: Final = "weights.safetensors"
EXITS: Final = "exits.safetensors"
FORMAT: Final = 1


@dataclass(frozen=True)
class StudentCard:
    """What a student is."""

    dataset: str
    classes: tuple[str, ...]
    input_dtype: str
    network: NetworkSpec
    normalisation: Normalisation
    method: str
    method_options: Mapping[str, Any]
    seed: int
    steps: int
    test_accuracy: float | None
    """Of the last step, on `test_samples` public samples; None where there was no test part."""
    test_samples: int
    privacy: Provenance
    weights_sha256: str
    """Of weights.safetensors; the student's weights are public as far as its answers are."""
    validation_samples: int = 0
    """Labelled samples that were held out of training."""
    exits: tuple[ExitSpec, ...] = ()
    """Its early exits, in order of depth; their weights are in exits.safetensors."""
    exits_test_accuracy: tuple[float, ...] = ()
    """Of each exit, as `test_accuracy`; empty where there was no test part."""
    exits_sha256: str = ""
    """Of exits.safetensors, where there are exits."""
    cut_at: ExitSpec | None = None
    """The exit at which an exported student stops: the weights are those of the network up to
    there and of the exit."""

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **asdict(self),
            "network": self.network.to_json(),
            "normalisation": self.normalisation.to_json(),
            "privacy": self.privacy.to_json(),
            "exits": [spec.to_json() for spec in self.exits],
            "cut_at": None if self.cut_at is None else self.cut_at.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StudentCard:
        """Raises ValueError for another format, KeyError for a missing field."""
        content = dict(values)
        if content.pop("format") != FORMAT:
            raise ValueError(f"format {values['format']}, this version reads {FORMAT}")
        cut = content.get("cut_at")
        try:
            return cls(
                **{
                    **content,
                    "classes": tuple(content["classes"]),
                    "network": NetworkSpec.from_json(content["network"]),
                    "normalisation": Normalisation.from_json(content["normalisation"]),
                    "privacy": Provenance.from_json(content["privacy"]),
                    "exits": tuple(map(ExitSpec.from_json, content.get("exits", []))),
                    "exits_test_accuracy": tuple(content.get("exits_test_accuracy", [])),
                    "cut_at": ExitSpec.from_json(cut) if cut else None,
                }
            )
        except TypeError as error:
            raise ValueError(str(error)) from error


def write_student(
    folder: Path, student: nn.Module, card: StudentCard, exits: Sequence[ExitHead] = ()
) -> StudentCard:
    """Writes weights and exits, then the card with their digests; returns that card."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(student, folder / WEIGHTS, {"card": CARD})
    written = replace(card, weights_sha256=sha256_of(folder / WEIGHTS))
    if exits:
        save_weights(nn.ModuleList(exits), folder / EXITS, {"card": CARD})
        specs = tuple(head.spec for head in exits)
        written = replace(written, exits=specs, exits_sha256=sha256_of(folder / EXITS))
    text = json.dumps(written.to_json(), indent=2, ensure_ascii=False) + "\n"
    write_durably(folder / CARD, text.encode())
    return written


def read_card(folder: Path) -> StudentCard:
    """The card of an exported student, or of a finished run (its `student` folder).

    Raises UserError when there is none, or it cannot be understood.
    """
    path = student_folder(folder) / CARD
    try:
        return StudentCard.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is not a student's card: {error}") from error


def read_student(folder: Path) -> tuple[nn.Module, StudentCard]:
    """The student in eval mode on the CPU, and its card.

    Raises UserError when a part is missing, or the weights are not the card's.
    """
    home = student_folder(folder)
    card = read_card(home)
    if sha256_of(home / WEIGHTS) != card.weights_sha256:
        raise UserError(f"{home / WEIGHTS} is not the file that {home / CARD} belongs to")
    cut = card.cut_at
    student = build(card.network) if cut is None else build_exit(card.network, cut)
    load_weights(student, home / WEIGHTS)
    return student.eval(), card


def read_exits(folder: Path) -> list[ExitHead]:
    """A student's early exits in eval mode, in order of depth; empty where it has none.

    Raises UserError when the weights are missing, or not the card's.
    """
    home = student_folder(folder)
    card = read_card(home)
    if not card.exits:
        return []
    if not (home / EXITS).is_file() or sha256_of(home / EXITS) != card.exits_sha256:
        raise UserError(f"{home / EXITS} is not the file that {home / CARD} belongs to")
    heads = [ExitHead(spec) for spec in card.exits]
    load_weights(nn.ModuleList(heads), home / EXITS)
    return [head.eval() for head in heads]


def student_folder(folder: Path) -> Path:
    """`folder` itself, or its `student` where it is a run's. Raises UserError for neither."""
    for home in (folder, folder / "student"):
        if (home / CARD).is_file() and (home / WEIGHTS).is_file():
            return home
    if (folder / "config.toml").exists():
        raise UserError(f"the run in {folder} is not finished; go on with --resume first")
    raise UserError(f"{folder} holds no student ({CARD} and {WEIGHTS})")


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
