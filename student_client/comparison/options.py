"""What a comparison was asked for, and which students that makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.methods import METHODS, Method
from ktan.methods.combination import parse_method
from ktan.networks import parse_settings
from ktan.teachers.live import Draw
from ktan.trainer import TrainerOptions
from student_client.comparison.outcomes import Cell, TeacherKind
from student_client.connection import Connection
from student_client.option_groups import defaults_of, option_name, settings_of
from student_client.options import LOCAL, QueryOptions, StudentOptions

_OF_A_CELL = ("method", "seed", "shard")
"""Options of `train` that a comparison varies itself, or that one process has no use for."""


@dataclass(frozen=True)
class Comparison:
    """Everything that `compare` was asked for."""

    methods: tuple[str, ...]
    """Names, combinations by +, without the student alone."""
    seeds: tuple[int, ...]
    local: Path | None
    """Folder of a student, a run or a teacher; or of several students, with commas between."""
    remote: str | None
    """HOST:PORT."""
    out: Path
    data: DataSource
    recipe: SplitRecipe
    student: StudentOptions
    queries: QueryOptions
    trainer: TrainerOptions
    connection: Connection
    together: int | None = None
    """Students in lock-step at most; all of a seed when None."""
    validation: int = 0
    """Labelled units that are held out of training and give a validation curve."""
    local_draw: Draw = "mean"
    """What several local teachers answer; see `LiveTeacher`."""
    skip_impossible: bool = False
    """Leave out what a teacher cannot teach, instead of refusing."""

    def check(self) -> None:
        """Raises UserError for a mistake that needs no data to be found."""
        self.trainer.check()
        if not self.methods or not self.seeds:
            raise UserError("at least one method and one seed are needed: --methods, --seeds")
        if self.together is not None and self.together < 1:
            raise UserError(f"--together is {self.together}; it must be at least 1")
        for name, value in (("methods", self.methods), ("seeds", self.seeds)):
            twice = [one for one in value if value.count(one) > 1]
            if twice:
                raise UserError(f"--{name} gives {twice[0]} twice")
        taught = [name for name, method in self.resolved().items() if method.needs]
        if taught and self.local is None and self.remote is None:
            raise UserError(
                f"the method {taught[0]} needs a teacher; name one with --local FOLDER or "
                "--remote HOST:PORT"
            )

    def resolved(self) -> dict[str, Method]:
        """Name → method with its options, the student alone first.

        Raises UserError for an unknown method, and for an option that none of them has.
        """
        settings = parse_settings("--method-set", self.student.method_set)
        names = dict.fromkeys((LOCAL, *self.methods))
        owners: dict[str, list[str]] = {key: [] for key in settings}
        for name in names:
            for key in settings:
                if _takes(name, key):
                    owners[key].append(name)
        lost = [key for key, found in owners.items() if not found]
        if lost:
            raise UserError(f"no method of {', '.join(self.methods)} has the option '{lost[0]}'")
        return {
            name: parse_method(
                name, {key: value for key, value in settings.items() if name in owners[key]}
            )
            for name in names
        }

    def cells(self) -> list[Cell]:
        """All students, seed by seed, so that a table fills with whole comparisons."""
        kinds: list[TeacherKind] = []
        kinds += ["local"] if self.local is not None else []
        kinds += ["remote"] if self.remote is not None else []
        methods = self.resolved()
        alone: list[TeacherKind] = ["none"]
        return [
            Cell(name, kind, seed)
            for seed in self.seeds
            for name, method in methods.items()
            for kind in (kinds if method.needs else alone)
        ]

    def trainer_of(self, seed: int) -> TrainerOptions:
        """The options under one seed."""
        return replace(self.trainer, seed=seed)

    def settings(self) -> dict[str, Any]:
        """Option name → value, as on the command line."""
        return {
            "methods": ",".join(self.methods),
            "seeds": ",".join(map(str, self.seeds)),
            "local": self.local,
            "remote": self.remote,
            "out": self.out,
            **{option_name(name): getattr(self, name) for name in self._own_defaults()},
            **_without_cells(settings_of(*self._groups)),
        }

    def defaults(self) -> dict[str, Any]:
        """The same where nothing was given, of all that need not be."""
        own = {option_name(name): value for name, value in self._own_defaults().items()}
        return {**own, **_without_cells(defaults_of(*self._groups))}

    def _own_defaults(self) -> dict[str, Any]:
        return {one.name: one.default for one in fields(self) if one.default is not MISSING}

    @property
    def _groups(self) -> tuple[Any, ...]:
        return (
            self.data, self.recipe, self.student, self.queries, self.trainer, self.connection
        )  # fmt: skip


def _without_cells(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _OF_A_CELL}


def parse_methods(text: str) -> tuple[str, ...]:
    """`ktan, at,ktan+byot` as its names; the student alone is always there and left out here."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    return tuple(name for name in names if name != LOCAL)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2` as numbers. Raises UserError for anything else."""
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--seeds wants numbers with commas between, not '{text}'") from error
    if min(seeds) < 0:
        raise UserError(f"--seeds gives {min(seeds)}; a seed is at least 0")
    return seeds


def _takes(name: str, option: str) -> bool:
    """Whether a method, or one part of a combination, has an option (`PART.option`)."""
    part, dot, own = option.rpartition(".")
    parts: Sequence[str] = [one for one in name.split("+") if one in METHODS]
    return any(
        own in {field.name for field in fields(METHODS[one])}  # type: ignore[arg-type]
        for one in parts
        if not dot or part == one
    )
