"""Which service is rehearsed: synthetic teachers by number, or the likeness of a trained one."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, cast, get_args

from ktan.card_file import CARD_FILE
from ktan.errors import UserError
from privacy.accounting import Kind
from privacy.budget import BudgetPlan, open_plan
from privacy.noise import DEFAULT_NOISE, Closeness, NoiseName, closeness
from privacy.release import TapRelease
from teacher_server.menu import ServedTap, build_menu, parse_shares
from teacher_server.options import ServeOptions
from teacher_server.public_teacher import PublicTap, PublicTeacher
from teacher_server.rehearsal.cases import SAMPLE_BYTES
from teacher_server.rehearsal.throw_away import DATASET

_UNLIMITED_EPSILON: Final = 1.5e6
"""At δ = 1e-5 μ² = 3·10⁶: that many trials of μ = 1, and within what 62 bits count."""
_UNLIMITED_DRAWS: Final = 2**44


@dataclass(frozen=True)
class RehearsalOptions:
    """The synthetic teachers, their budget, and in which of two adjacent worlds they are."""

    world: int = 0
    """0 or 1: the content of the one shard that adjacency replaces."""
    teachers: int = 4
    """k, the replaced one included."""
    tap: tuple[str, ...] = ("logits:4:2", "probabilities:4", "hint:8:1")
    """NAME:DIMENSION:BOUND; NAME is logits, probabilities (its bound is 1), hint or hint.ANY."""
    like: Path | None = None
    """A trained teacher's folder: k, taps and bounds from its public card; no weights are read."""
    radius: int | None = None
    """Grid radius R of every tap; from --epsilon and --answers, as a service has it, when not
    given."""
    epsilon: float = 8.0
    """ε of the ledger's budget."""
    delta: float = 1e-5
    """δ of the ledger's budget."""
    unlimited: bool = False
    """Open the throw-away ledger with a budget that no audit exhausts. Radii are still those of
    --epsilon and --answers."""
    noise: NoiseName = DEFAULT_NOISE
    """Which sampler."""

    def check(self) -> None:
        """Raises UserError for values that no rehearsal can have."""
        if self.world not in (0, 1):
            raise UserError(f"--world is 0 or 1, not {self.world}")
        if self.teachers < 1:
            raise UserError(f"--teachers must be at least 1, not {self.teachers}")

    @property
    def served_plan(self) -> BudgetPlan:
        """The plan whose budget the radii divide."""
        return open_plan(self.epsilon, self.delta, closeness=closeness(self.noise))

    @property
    def ledger_plan(self) -> BudgetPlan:
        """The plan of the throw-away ledger.

        An unlimited one promises nothing of use (its ε is past a million, where the sampler's own
        error could not be counted): it is there to be spent.
        """
        if not self.unlimited:
            return self.served_plan
        return open_plan(
            _UNLIMITED_EPSILON, 1e-5, draws=_UNLIMITED_DRAWS, closeness=Closeness(0.0, 0.0)
        )

    def teacher(self) -> PublicTeacher:
        """The synthetic teacher's public face. Raises UserError."""
        if self.like is None:
            mode, teachers = "ensemble" if self.teachers > 1 else "single", self.teachers
            taps = tuple(map(_parse_tap, self.tap))
        else:
            card = _read_card(self.like)
            mode, teachers, taps = card.mode, card.teachers, card.taps
        if mode == "dp-sgd":
            raise UserError(f"{self.like} is a dp-sgd teacher: its answers carry no noise")
        if len({tap.name for tap in taps}) != len(taps):
            raise UserError("each --tap needs a name of its own: hint.a, hint.b")
        classes = max((tap.shape[0] for tap in taps if tap.kind != "hint"), default=2)
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
        facts = json.dumps(asdict(teacher) | {"world": self.world}, sort_keys=True)
        return replace(teacher, version=hashlib.sha256(facts.encode()).hexdigest()[:32])

    def menu(self, teacher: PublicTeacher, serving: ServeOptions) -> tuple[ServedTap, ...]:
        """What is served: by --radius, or by --answers and --share as `teacher-server serve`."""
        if self.radius is None:
            units = self.served_plan.answer_units
            return build_menu(teacher, units, serving.answers, parse_shares(serving.share))
        try:
            return tuple(
                ServedTap(
                    TapRelease(
                        tap.name,
                        tap.kind,
                        math.prod(tap.shape),
                        tap.bound,
                        self.radius,
                        teacher.teachers,
                    ),
                    tap.shape,
                    tap.temperature,
                )
                for tap in teacher.taps
            )
        except ValueError as error:
            raise UserError(f"--radius {self.radius}: {error}") from error


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
