"""What one student of a comparison came to: read from its run's `result.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ktan.durable import write_durably
from ktan.errors import UserError
from student_client.provenance import Provenance
from student_client.results import RESULT

TeacherKind = Literal["none", "local", "remote"]
"""Nobody; a network on this machine, without noise; a private service."""


@dataclass(frozen=True, order=True)
class Cell:
    """Which student: one method, one teacher, one seed."""

    method: str
    teacher: TeacherKind
    seed: int

    @property
    def folder(self) -> str:
        """The run's folder, below the comparison's `runs`."""
        return f"{self.method}-{self.teacher}-{self.seed}"

    @property
    def title(self) -> str:
        """For a line on the screen."""
        whose = "alone" if self.teacher == "none" else f"{self.teacher} teacher"
        return f"{self.method}, {whose}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """A student after its last step."""

    cell: Cell
    accuracy: float | None
    """On the whole test part, in [0, 1]; None of a student that diverged."""
    parameters: int
    steps: int
    """Done."""
    privacy: Provenance

    @classmethod
    def from_result(cls, cell: Cell, content: Mapping[str, Any]) -> Outcome:
        """Of a `result.json`. Raises KeyError for anything else."""
        accuracy = content["accuracy"]
        return cls(
            cell=cell,
            accuracy=None if accuracy is None else float(accuracy),
            parameters=int(content["parameters"]),
            steps=int(content["steps"]),
            privacy=Provenance.from_json(content["privacy"]),
        )


def write_diverged(folder: Path, outcome: Outcome, reason: str) -> None:
    """In the place of a result: what became of a student that has none."""
    content = {
        "accuracy": None,
        "diverged": reason,
        "parameters": outcome.parameters,
        "steps": outcome.steps,
        "privacy": outcome.privacy.to_json(),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_durably(folder / RESULT, text.encode())


def read_outcome(cell: Cell, path: Path) -> Outcome | None:
    """The outcome in a `result.json`, None where the student is not finished.

    Raises UserError for a file that cannot be understood.
    """
    try:
        return Outcome.from_result(cell, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not the result of a student ({error}); delete its folder, and the student "
            "is trained again"
        ) from error
