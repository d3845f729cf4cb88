"""The public samples that an export is checked, calibrated and measured on: the run's own."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ktan.data import DataSource, SplitRecipe
from student_client.config import CONFIG
from student_client.public_data import PublicData, check_suits
from student_client.student_card import StudentCard

_Options = TypeVar("_Options", DataSource, SplitRecipe)


def public_data_of(
    folder: Path, card: StudentCard, data: DataSource, recipe: SplitRecipe
) -> PublicData:
    """What the student in `folder` was taught and tested with.

    A run, and a student of a comparison, have it on record; options that differ from their defaults
    go before the record (data that has moved), and stand alone for an exported student. Raises
    UserError when it cannot be loaded or does not suit the student.
    """
    recorded = _recorded(folder)
    public = PublicData.load(
        _as_recorded(data, recorded, {}), _as_recorded(recipe, recorded, {"seed": "split-seed"})
    )
    check_suits(public, card.input_dtype, card.network.input_shape, card.classes, "the student")
    return public


def _recorded(folder: Path) -> dict[str, Any]:
    """Options of the command that made the student; empty where there is no record."""
    home = folder.absolute()
    if home.name == "student":
        home = home.parent
    homes = {"train": home}
    if home.parent.name == "runs":
        # A comparison has one record, above the runs of its students.
        homes["compare"] = home.parent.parent
    for command, place in homes.items():
        if (place / CONFIG).is_file():
            tables = tomllib.loads((place / CONFIG).read_text(encoding="utf-8"))
            if command in tables:
                found: dict[str, Any] = tables[command]
                return found
    return {}


def _as_recorded(given: _Options, recorded: dict[str, Any], names: dict[str, str]) -> _Options:
    changes: dict[str, Any] = {}
    for option in fields(given):
        value = recorded.get(names.get(option.name, option.name.replace("_", "-")))
        if value is not None and getattr(given, option.name) == option.default:
            changes[option.name] = Path(value) if isinstance(option.default, Path) else value
    return replace(given, **changes)
