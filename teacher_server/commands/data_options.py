"""How the commands of `teacher-server` name the private data, and its split."""

from __future__ import annotations

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from ktan.data import DataSource, SplitRecipe


def _split_name(name: str) -> str:
    """The split's own seed; `--seed` is the training's."""
    return "split-seed" if name == "seed" else cyclopts.default_name_transform(name)


Data = Annotated[DataSource, Parameter(name="*", negative="", group="Data")]
Recipe = Annotated[SplitRecipe, Parameter(name="*", name_transform=_split_name, group="Data")]
