"""What a trainer chooses: the student, how it is taught, and what is asked of the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

from ktan.errors import UserError
from ktan.methods import METHODS, Method
from ktan.networks import NetworkSpec, parse_settings, suited
from ktan.selection import Selection
from ktan.teacher import AnswerTap

LOCAL = "local"
"""The method that asks no teacher."""
DEFAULT = "ktan"
_HINTED = ("ktan", "fitnet")


@dataclass(frozen=True)
class StudentOptions:
    """The student's network and the method that teaches it."""

    network: str | None = None
    """Name of the student's network; by the data when not given: mlp-small for tables, cnn-small
    for grey images of up to 32 pixels a side, resnet20 for others."""
    network_set: tuple[str, ...] = ()
    """NAME=VALUE: an option of the network, such as width=32; repeat for several."""
    method: str | None = None
    """ktan, fitnet, soft-logits or local (no teacher); ktan when not given."""
    method_set: tuple[str, ...] = ()
    """NAME=VALUE: an option of the method, such as hint_weight=0.1; repeat for several."""
    hint: tuple[str, ...] = ()
    """TAP=PATH: the student's module that imitates a hint of the teacher; the features before the
    classifier (for a map: the last map before them) when not given."""


@dataclass(frozen=True)
class QueryOptions:
    """Which public samples the teacher is asked about."""

    queries: int = 300
    """Unlabelled public samples to ask about."""
    select: Selection = "random"
    """random, or kcentre: every public sample has a chosen one near it, in the features of a
    student trained on the public labels."""
    select_steps: int = 200
    """Training steps of the student whose features kcentre looks at; 0 takes it as it begins."""
    query_batch: int = 64
    """Samples in one request."""
    answers: Path | None = None
    """Folder that keeps the answers, shared by the runs that name it; OUT/answers when not
    given."""


def network_spec(
    options: StudentOptions, input_shape: tuple[int, ...], classes: int
) -> NetworkSpec:
    """The student's network for such samples. Raises UserError for a setting that cannot be."""
    name = options.network or suited(input_shape)
    settings = parse_settings("--network-set", options.network_set)
    return NetworkSpec(name, input_shape, classes, settings)


def chosen_method(options: StudentOptions, *, teacher: bool) -> tuple[str, Method]:
    """The method's name and the method with its options.

    Without a teacher only `local` is possible, and chosen when none is named. Raises UserError for
    an unknown method or option, or one that needs a teacher where there is none.
    """
    name = options.method or (DEFAULT if teacher else LOCAL)
    if name not in METHODS:
        raise UserError(f"no method is called '{name}'; choose one of {', '.join(METHODS)}")
    if not teacher and name != LOCAL:
        raise UserError(
            f"the method {name} needs a teacher, and 'none' was given; "
            "name a teacher, or choose --method local"
        )
    kind: Any = METHODS[name]
    known = {field.name: field for field in fields(kind)}
    settings = {}
    for key, value in parse_settings("--method-set", options.method_set).items():
        if key not in known:
            raise UserError(
                f"the method {name} has no option '{key}'; it has {', '.join(known) or 'none'}"
            )
        settings[key] = _of_the_kind(known[key], value, name)
    method: Method = kind(**settings)
    return name, method


def require_hint(method: str, taps: Mapping[str, AnswerTap]) -> None:
    """Raises UserError for a method that imitates hints where the teacher releases none."""
    if method in _HINTED and all(tap.kind != "hint" for tap in taps.values()):
        raise UserError(
            f"method {method} needs a hint, and this teacher releases none: use "
            "--method soft-logits"
        )


def _of_the_kind(field: Field[Any], value: Any, method: str) -> Any:
    """`value` as the type of the option's default. Raises UserError."""
    default = None if field.default is MISSING else field.default
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise UserError(
            f"--method-set {field.name}={value} does not suit {method}: give a value like {default}"
        )
    return value


def hint_paths(options: StudentOptions) -> dict[str, str]:
    """Tap → the student's module path, as far as given. Raises UserError for another form."""
    paths = {}
    for text in options.hint:
        tap, separator, path = text.partition("=")
        if not (tap and separator and path):
            raise UserError(f"--hint wants TAP=PATH, such as hint=features, not '{text}'")
        paths[tap] = path
    return paths
