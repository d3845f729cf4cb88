"""Which service is rehearsed: synthetic teachers by number, or the likeness of a trained one."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast, get_args

from ktan.card_file import CARD_FILE
from ktan.errors import UserError
from privacy.accounting import NAMES_CLASSES, Kind
from privacy.release import TapRelease
from teacher_server.menu import ServedTap, build_menu, parse_shares
from teacher_server.options import ServeOptions
from teacher_server.public_teacher import PublicTap, PublicTeacher
from teacher_server.rehearsal.cases import SAMPLE_BYTES
from teacher_server.rehearsal.options import RehearsalOptions
from teacher_server.rehearsal.throw_away import DATASET


def public_teacher(options: RehearsalOptions) -> PublicTeacher:
    """The synthetic teacher's public face. Raises UserError."""
    if options.like is None:
        mode, teachers = "ensemble" if options.teachers > 1 else "single", options.teachers
        taps = tuple(map(_parse_tap, options.tap))
    else:
        card = _read_card(options.like)
        mode, teachers, taps = card.mode, card.teachers, card.taps
    if mode == "dp-sgd":
        raise UserError(f"{options.like} is a dp-sgd teacher: its answers carry no noise")
    if len({tap.name for tap in taps}) != len(taps):
        raise UserError("each --tap needs a name of its own: hint.a, hint.b")
    classes = max((tap.shape[0] for tap in taps if tap.kind in NAMES_CLASSES), default=2)
    teacher = PublicTeacher(
        version="",
        mode=mode,
        teachers=teachers,
        dataset=DATASET,
        classes=tuple(str(number) for number in range(classes)),
        input_shape=(SAMPLE_BYTES,),
        input_dtype="uint8",
        mean=(0.0,) * SAMPLE_BYTES,
        std=(1.0,) * SAMPLE_BYTES,
        taps=taps,
    )
    # The same synthetic teacher is the same version: after a crash its answers are found again.
    facts = json.dumps(asdict(teacher) | {"world": options.world}, sort_keys=True)
    return replace(teacher, version=hashlib.sha256(facts.encode()).hexdigest()[:32])


def rehearsed_menu(
    options: RehearsalOptions, teacher: PublicTeacher, serving: ServeOptions
) -> tuple[ServedTap, ...]:
    """What is served: by --radius, or by --answers and --share as `teacher-server serve`."""
    if options.radius is None:
        units = options.served_plan.answer_units
        return build_menu(teacher, units, serving.answers, parse_shares(serving.share))
    try:
        return tuple(
            ServedTap(
                TapRelease(
                    tap.name,
                    tap.kind,
                    math.prod(tap.shape),
                    tap.bound,
                    options.radius,
                    teacher.teachers,
                ),
                tap.shape,
                tap.temperature,
            )
            for tap in teacher.taps
        )
    except ValueError as error:
        raise UserError(f"--radius {options.radius}: {error}") from error


def _parse_tap(text: str) -> PublicTap:
    name, _, rest = text.partition(":")
    kind = name.partition(".")[0]
    dimension, _, bound = rest.partition(":")
    try:
        size, limit = int(dimension), float(bound or 1.0)
    except ValueError:
        size, limit = 0, 0.0
    if kind not in get_args(Kind) or size < 1 or not 0.0 < limit < math.inf:
        raise UserError(
            f"--tap wants NAME:DIMENSION:BOUND, such as hint:16:2.5, with a name that begins with "
            f"{', '.join(get_args(Kind))}; got '{text}'"
        )
    if kind == "probabilities" and limit != 1.0:
        raise UserError(f"--tap {text}: probabilities are bounded by 1")
    temperature = 1.0 if kind == "probabilities" else None
    return PublicTap(name, cast(Kind, kind), (size,), limit, temperature)


def _read_card(folder: Path) -> PublicTeacher:
    path = folder / CARD_FILE
    try:
        return PublicTeacher.of_card(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no teacher ({path.name} is missing)") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a teacher's card: {error!r}") from error
