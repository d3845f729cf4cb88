"""One student, from public data to a folder: choose, ask, train, measure, write.

A run's folder holds `config.toml` (the resolved options), `selection.json` (what was chosen),
`answers/` (the answer store), the trainer's checkpoint, curves and TensorBoard scalars,
`curves.png`, `result.json` and `student/` (the exported student and its card).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from torch import nn

from ktan.data import DataSource, SplitRecipe
from ktan.data_parts import Rows
from ktan.errors import UserError
from ktan.methods import Method, Objective
from ktan.methods.combination import method_options
from ktan.methods.needs import require
from ktan.networks import (
    NetworkSpec,
    count_parameters,
    default_hint,
    multiply_adds,
)
from ktan.networks.exits import exit_heads
from ktan.parallel import ONE, Group
from ktan.resuming import require_shareable
from ktan.schedule import in_rounds
from ktan.teacher import AnswerTap
from ktan.threads import suit_threads
from ktan.trainer import CHECKPOINT, TrainerOptions
from student_client.asking import Asking
from student_client.binding import bind_method, blank, new_student
from student_client.config import CONFIG, check_config, write_config
from student_client.connection import Connection
from student_client.errors import TeacherError, TeacherUnavailable
from student_client.option_groups import defaults_of, settings_of
from student_client.options import (
    CourseOptions,
    QueryOptions,
    StudentOptions,
    chosen_method,
    hint_paths,
    network_spec,
)
from student_client.public_data import PublicData
from student_client.queries import read_selection
from student_client.restarts import is_own_restart, note_start
from student_client.results import RESULT, Taught, write_results
from student_client.screen import Screen
from student_client.sources import LocalSource, ServiceSource, Source
from student_client.tap_choice import used_by
from student_client.training import train_on

NO_TEACHER: Final = "none"


@dataclass(frozen=True)
class Run:
    """Everything that `train` was asked for."""

    teacher: str
    """HOST:PORT, file:DIR or none."""
    out: Path
    data: DataSource
    recipe: SplitRecipe
    student: StudentOptions
    queries: QueryOptions
    trainer: TrainerOptions
    connection: Connection
    course: CourseOptions = field(default_factory=CourseOptions)

    def settings(self) -> dict[str, Any]:
        """Option name → value, as on the command line."""
        return {"teacher": self.teacher, "out": self.out, **settings_of(*self._groups)}

    def defaults(self) -> dict[str, Any]:
        """The same where nothing was given, of all that need not be."""
        return defaults_of(*self._groups)

    @property
    def _groups(self) -> tuple[Any, ...]:
        return (
            self.data, self.recipe, self.student, self.queries, self.course, self.trainer,
            self.connection,
        )  # fmt: skip


def train_student(
    run: Run,
    screen: Screen,
    *,
    resume: bool,
    agreed: bool,
    enough: bool = False,
    group: Group = ONE,
) -> dict[str, Any]:
    """Makes the student and returns what `result.json` says of it.

    agreed: pay for answers without asking. enough: on resuming, further rounds ask for nothing.
    group: processes that all call this with the same run, and see the same files; the first one
    asks the service, writes, and returns the result, the others an empty one.
    Raises UserError, TeacherError or TeacherUnavailable; at these and at ctrl-C the folder keeps
    what there is, and `resume` goes on from it.
    """
    run.trainer.check()
    if enough and not resume:
        raise UserError("--enough is for a run that is resumed; give --resume, too")
    method = chosen_method(run.student, teacher=run.teacher != NO_TEACHER, rounds=run.course.rounds)
    if run.course.rounds is not None and not (run.teacher != NO_TEACHER and method.needs):
        raise UserError("--rounds splits queries, and nobody is asked here; leave it away")
    given = hint_paths(run.student)
    with group.leader_first():
        if group.leads:
            # Started again after a failure, it goes on from whatever it has begun.
            resume = resume or is_own_restart(run.out, group)
            _open_folder(run, resume=resume)
            note_start(run.out, group)
    resume = group.any(resume)
    try:
        return _train_student(
            run, screen, method, given, group, resume=resume, agreed=agreed, enough=enough
        )
    except (KeyboardInterrupt, TeacherUnavailable, TeacherError):
        if _begun(run.out):
            screen.say(
                "interrupted; nothing is lost. Go on with\n"
                f"  student-client train --config {run.out / CONFIG} --resume"
            )
        raise


def _train_student(
    run: Run,
    screen: Screen,
    method: Method,
    given: Mapping[str, tuple[str, ...]],
    group: Group,
    *,
    resume: bool,
    agreed: bool,
    enough: bool,
) -> dict[str, Any]:
    if resume and (run.out / RESULT).exists():
        result: dict[str, Any] = json.loads((run.out / RESULT).read_text(encoding="utf-8"))
        screen.fact("Finished", f"before: {run.out / RESULT}")
        return result

    started = time.monotonic()
    public = PublicData.load(run.data, run.recipe).holding_out(run.course.validation)
    spec = network_spec(run.student, public.input_shape, len(public.classes))
    batch = run.trainer.labelled_batch + run.trainer.answered_batch
    suit_threads(batch // group.count * multiply_adds(spec))
    # Before anything is paid for; no step has more than there are.
    group.share(min(run.trainer.labelled_batch, len(public.labelled)), "labelled")
    student = new_student(spec, run.trainer.seed)
    _introduce(screen, public, spec, student, method)
    source = _source(run, method, screen, agreed=agreed, asks=group.leads)
    taps: dict[str, AnswerTap] = {}

    def bind(values: Mapping[str, Rows]) -> Objective:
        objective = bind_method(method, student, spec, taps, given, values, run.trainer.seed)
        if run.course.rounds is not None and not any(stage.asks for stage in objective.stages):
            objective.stages = in_rounds(objective.stages, run.course.rounds)
        return objective

    with closing(source) if source is not None else nullcontext():
        asking = None
        if source is None:
            objective = bind({})
        else:
            with group.leader_first():
                asking = Asking(
                    public, source, run.queries, run.trainer, default_hint(spec), run.out, screen,
                    read_selection(run.out, public) if resume or not group.leads else None, group,
                )  # fmt: skip
                if enough and group.leads:
                    asking.close()
                taps = dict(source.prepare(public, asking.complete))
                # Whatever does not fit must be found before anything is paid for.
                require(method.needs, taps, method.name)
                trial = bind(blank(taps))
                require_shareable(trial, run.trainer, group)
                answers = asking.begin(student, trial.stages)
                objective = bind(answers.values)
        history = train_on(
            public, student, objective, asking, run.trainer, run.out, screen, group, resume=resume
        )
    if not group.leads:
        return {}
    taught = Taught(
        student, spec, method, history,
        None if asking is None else asking.asked,
        None if asking is None else asking.answers,
        exit_heads(objective),
    )  # fmt: skip
    return write_results(run.out, public, taught, run.trainer, time.monotonic() - started)


def _open_folder(run: Run, *, resume: bool) -> None:
    settings = run.settings()
    if resume:
        if not (run.out / CONFIG).exists():
            raise UserError(f"{run.out} holds no run to resume; leave --resume away to begin one")
        check_config(run.out, settings, run.defaults())
        return
    if _begun(run.out):
        raise UserError(
            f"{run.out} already holds a run; go on with it by --resume, "
            "or name another folder with --out"
        )
    run.out.mkdir(parents=True, exist_ok=True)
    write_config(run.out, settings)


def _begun(out: Path) -> bool:
    """Whether something was paid for or trained: what came before is not worth a question."""
    traces = [CHECKPOINT, RESULT, "answers/requests/*.json", "answers/*/*.safetensors"]
    return any(any(out.glob(trace)) for trace in traces)


def _introduce(
    screen: Screen,
    public: PublicData,
    spec: NetworkSpec,
    student: nn.Module,
    method: Method,
) -> None:
    screen.fact(
        "Data",
        f"{public.name}: {len(public.labelled):,} public samples with labels, "
        + (f"{len(public.validation):,} held out to watch, " if len(public.validation) else "")
        + f"{len(public.unlabelled):,} without, {len(public.test):,} for the test",
    )
    screen.fact("Student", f"{spec.name}, {count_parameters(student):,} parameters")
    options = ", ".join(f"{key} {value}" for key, value in method_options(method).items())
    screen.fact("Method", f"{method.name} ({options})" if options else method.name)


def _source(run: Run, method: Method, screen: Screen, *, agreed: bool, asks: bool) -> Source | None:
    if run.teacher == NO_TEACHER or not method.needs:
        return None
    taps = used_by(method, all_of_them=run.queries.all_taps)
    kind, separator, folder = run.teacher.partition(":")
    if kind == "file" and separator:
        if not folder:
            raise UserError("file: needs a teacher's folder behind it: file:DIR")
        return LocalSource(Path(folder), run.trainer.device, screen, taps)
    return ServiceSource(
        run.teacher,
        run.connection,
        run.queries.answers or run.out / "answers",
        run.queries.query_batch,
        screen,
        agreed=agreed,
        in_flight=run.queries.in_flight,
        taps=taps,
        asked_elsewhere=not asks,
    )
