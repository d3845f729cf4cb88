"""Groups of options that several commands share, each named once for the command line."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Final

import cyclopts
from cyclopts import Parameter

from ktan.data import DataSource, SplitRecipe
from student_client.options import QueryOptions


def option_name(name: str) -> str:
    """As on the command line."""
    return cyclopts.default_name_transform(name)


def _split_name(name: str) -> str:
    """The split's own seed; `--seed` is the run's."""
    return "split-seed" if name == "seed" else option_name(name)


Data = Annotated[DataSource, Parameter(name="*", negative="", group="Data")]
Recipe = Annotated[SplitRecipe, Parameter(name="*", name_transform=_split_name, group="Data")]
Queries = Annotated[QueryOptions, Parameter(name="*", negative="", group="Queries")]
STUDENT: Final = Parameter(name="*", negative="", group="Student")
TRAINING: Final = Parameter(name="*", negative="", group="Training")
DATA = DataSource()
RECIPE = SplitRecipe()
QUERIES = QueryOptions()


def settings_of(*groups: Any) -> dict[str, Any]:
    """Option name as on the command line → value, of dataclasses of options."""
    found = {}
    for group in groups:
        named = _split_name if isinstance(group, SplitRecipe) else option_name
        found.update({named(option.name): getattr(group, option.name) for option in fields(group)})
    return found


def defaults_of(*groups: Any) -> dict[str, Any]:
    """Option name as on the command line → value where none is given, of the same dataclasses."""
    return settings_of(*(type(group)() for group in groups))
