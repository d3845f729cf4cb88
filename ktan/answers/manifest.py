"""Whose answers an answer store holds: one teacher version under one set of release settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktan.errors import UserError
from ktan.teacher import AnswerTap

FORMAT = 2
"""2: answers may lie in shards. A store of format 1 is read as it is, and becomes one of format 2
with its first shard."""
_READ = (1, FORMAT)


@dataclass(frozen=True)
class AnswerManifest:
    """Whose answers a store holds: one teacher version under one set of release settings."""

    teacher_version: str
    taps: tuple[AnswerTap, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "teacher_version": self.teacher_version,
            "taps": [tap.to_json() for tap in self.taps],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "AnswerManifest":
        """Raises UserError for a format that this version does not know."""
        if values.get("format") not in _READ:
            raise UserError(
                f"the answer store has format {values.get('format')}, this version reads "
                f"{' and '.join(map(str, _READ))}; use another folder"
            )
        taps = tuple(AnswerTap.from_json(tap) for tap in values["taps"])
        return cls(values["teacher_version"], taps)

    def difference(self, asked: "AnswerManifest", folder: Path) -> str:
        """Why the store in `folder`, which is of this manifest, is none for another, in words."""
        if self.teacher_version != asked.teacher_version:
            what = f"teacher {self.teacher_version}, not of teacher {asked.teacher_version}"
        else:
            names = sorted({tap.name for tap in set(self.taps) ^ set(asked.taps)})
            what = f"the same teacher under other release settings (taps {', '.join(names)})"
        return f"{folder} holds answers of {what}; use another folder for this teacher's answers"
