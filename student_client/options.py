"""What a trainer chooses: the student, how it is taught, and what is asked of the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ktan.errors import UserError
from ktan.methods import Method
from ktan.methods.combination import method_options, parse_method
from ktan.networks import NetworkSpec, parse_settings, suited
from ktan.selection import Selection

IN_FLIGHT = 4
"""Requests under way at once: while one is at the teacher others are on their way, or waiting."""
LOCAL = "local"
"""The method that asks no teacher."""
DEFAULT = "ktan"


@dataclass(frozen=True)
class StudentOptions:
    """The student's network and the method that teaches it."""

    network: str | None = None
    """Name of the student's network; by the data when not given: mlp-small for tables, cnn-small
    for grey images of up to 32 pixels a side, resnet20 for others."""
    network_set: tuple[str, ...] = ()
    """NAME=VALUE: an option of the network, such as width=32; repeat for several."""
    method: str | None = None
    """Name of a method (`student-client methods` lists them), or several joined by +, such as
    ktan+byot; ktan when not given, local where there is no teacher."""
    method_set: tuple[str, ...] = ()
    """NAME=VALUE: an option of the method, such as hint_weight=0.1; METHOD.NAME=VALUE for one of
    several; repeat for several."""
    hint: tuple[str, ...] = ()
    """TAP=PATH: the student's module that imitates a hint of the teacher (PATH,PATH for products);
    the features before the classifier, or for a map the last of its size, when not given."""


@dataclass(frozen=True)
class QueryOptions:
    """Which public samples the teacher is asked about."""

    queries: int = 300
    """Unlabelled public samples to ask about."""
    select: Selection = "random"
    """random; margin or entropy: where a student trained on the public labels is least sure;
    kcentre: every public sample has a chosen one near it, in that student's features;
    margin+kcentre: kcentre among the smallest margins."""
    select_steps: int = 200
    """Training steps of the student that all selections but random look at; 0 takes it as it
    begins."""
    query_batch: int = 64
    """Samples in one request."""
    in_flight: int = IN_FLIGHT
    """Requests under way at once."""
    all_taps: bool = False
    """Ask for every tap of the teacher, for methods that come later; those that the method uses
    when not given."""
    answers: Path | None = None
    """Folder that keeps the answers, shared by the runs that name it; OUT/answers when not
    given."""


@dataclass(frozen=True)
class CourseOptions:
    """How one student's training is laid out."""

    rounds: int | None = None
    """Rounds in which the queries are chosen and asked, each by the student as it then stands; by
    default the method's own (rona: 5), else 1. The price of all is agreed once, beforehand."""
    validation: int | None = None
    """Labelled units that are held out of training and give the validation curve; by default a
    tenth of them where there are 1,000 or more, else none."""


def network_spec(
    options: StudentOptions, input_shape: tuple[int, ...], classes: int
) -> NetworkSpec:
    """The student's network for such samples. Raises UserError for a setting that cannot be."""
    name = options.network or suited(input_shape)
    settings = parse_settings("--network-set", options.network_set)
    return NetworkSpec(name, input_shape, classes, settings)


def chosen_method(options: StudentOptions, *, teacher: bool, rounds: int | None = None) -> Method:
    """The method with its options; `rounds`, where given, go to a method that has its own.

    Without a teacher only methods that need none are possible, and `local` is chosen when none is
    named. Raises UserError for an unknown method or option, or one that needs a teacher where
    there is none.
    """
    settings = parse_settings("--method-set", options.method_set)
    name = options.method or (DEFAULT if teacher else LOCAL)
    method = parse_method(name, settings)
    if rounds is not None and any(
        option.rpartition(".")[2] == "rounds" for option in method_options(method)
    ):
        kept = {key: value for key, value in settings.items() if not key.endswith("rounds")}
        method = parse_method(name, {**kept, "rounds": rounds})
    if not teacher and method.needs:
        raise UserError(
            f"the method {method.name} needs a teacher, and 'none' was given; "
            "name a teacher, or choose --method local"
        )
    return method


def hint_paths(options: StudentOptions) -> dict[str, tuple[str, ...]]:
    """Tap → the student's module paths, as far as given. Raises UserError for another form."""
    paths = {}
    for text in options.hint:
        tap, separator, path = text.partition("=")
        if not (tap and separator and path):
            raise UserError(f"--hint wants TAP=PATH, such as hint=features, not '{text}'")
        paths[tap] = tuple(path.split(","))
    return paths
