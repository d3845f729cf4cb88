"""One student, from public data to a folder: choose, ask, train, measure, write.

A run's folder holds `config.toml` (the resolved options), `selection.json` (what was asked),
`answers/` (the answer store), the trainer's checkpoint, curves and TensorBoard scalars,
`curves.png`, `result.json` and `student/` (the exported student and its card).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.evaluation import accuracy
from ktan.history import History
from ktan.methods import Binding, Method, Objective
from ktan.methods.combination import method_options
from ktan.methods.needs import require
from ktan.networks import (
    NetworkSpec,
    build,
    count_parameters,
    default_hint,
    multiply_adds,
    stages_of,
)
from ktan.pairing import pair_taps
from ktan.teacher import AnswerTap
from ktan.threads import suit_threads
from ktan.trainer import CHECKPOINT, TrainerOptions, train
from ktan.training_data import TrainingData
from student_client.config import CONFIG, check_config, write_config
from student_client.connection import Connection
from student_client.errors import TeacherUnavailable
from student_client.options import (
    QueryOptions,
    StudentOptions,
    chosen_method,
    hint_paths,
    network_spec,
)
from student_client.provenance import UNPROTECTED
from student_client.public_data import PublicData
from student_client.queries import Chosen, choose, read_selection, write_selection
from student_client.results import RESULT, Taught, write_results
from student_client.screen import Screen
from student_client.sources import Answers, LocalSource, ServiceSource, Source

NO_TEACHER: Final = "none"
_WATCHED: Final = 2000
"""Test samples that the accuracy curve is drawn from."""


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

    def settings(self) -> dict[str, Any]:
        """Option name → value, as on the command line."""
        found: dict[str, Any] = {"teacher": self.teacher, "out": self.out}
        for group in (
            self.data, self.recipe, self.student, self.queries, self.trainer, self.connection
        ):  # fmt: skip
            for field in fields(group):
                name = "split_seed" if (group, field.name) == (self.recipe, "seed") else field.name
                found[name.replace("_", "-")] = getattr(group, field.name)
        return found


def train_student(run: Run, screen: Screen, *, resume: bool, agreed: bool) -> dict[str, Any]:
    """Makes the student and returns what `result.json` says of it.

    agreed: pay for answers without asking. Raises UserError, TeacherError or TeacherUnavailable;
    at these and at ctrl-C the folder keeps what there is, and `resume` goes on from it.
    """
    run.trainer.check()
    method = chosen_method(run.student, teacher=run.teacher != NO_TEACHER)
    given = hint_paths(run.student)
    _open_folder(run, resume=resume)
    try:
        return _train_student(run, screen, method, given, resume=resume, agreed=agreed)
    except (KeyboardInterrupt, TeacherUnavailable):
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
    *,
    resume: bool,
    agreed: bool,
) -> dict[str, Any]:
    if resume and (run.out / RESULT).exists():
        result: dict[str, Any] = json.loads((run.out / RESULT).read_text(encoding="utf-8"))
        screen.fact("Finished", f"before: {run.out / RESULT}")
        return result

    started = time.monotonic()
    public = PublicData.load(run.data, run.recipe)
    spec = network_spec(run.student, public.input_shape, len(public.classes))
    batch = run.trainer.labelled_batch + run.trainer.answered_batch
    suit_threads(batch * multiply_adds(spec))
    student = _new_student(spec, run.trainer.seed)
    _introduce(screen, public, spec, student, method)
    source = _source(run, method, screen, agreed=agreed)
    taps: dict[str, AnswerTap] = {}

    def bind(values: Mapping[str, Tensor]) -> Objective:
        return _bind(method, student, spec, taps, given, values, run.trainer.seed)

    with closing(source) if source is not None else nullcontext():
        chosen, answers = None, None
        if source is not None:
            chosen = read_selection(run.out, public) if resume else None
            taps = dict(source.prepare(public, chosen))
            # Whatever does not fit must be found before anything is paid for.
            require(method.needs, taps, method.name)
            bind(_blank(taps))
            if chosen is None:
                chosen = choose(
                    public, student, default_hint(spec), run.queries, run.trainer,
                    progress=screen.bars,
                )  # fmt: skip
                write_selection(run.out, chosen)
            screen.fact(
                "Queries",
                f"{len(chosen.rows):,} of {len(public.unlabelled):,} public samples, "
                f"chosen by {run.queries.select}",
            )
            answers = source.answers(public, chosen)
        objective = bind({} if answers is None else answers.values)
        history = _train(run, public, student, objective, chosen, answers, screen, resume=resume)
    taught = Taught(student, spec, method, history, chosen, answers)
    return write_results(run.out, public, taught, run.trainer, time.monotonic() - started)


def _open_folder(run: Run, *, resume: bool) -> None:
    settings = run.settings()
    if resume:
        if not (run.out / CONFIG).exists():
            raise UserError(f"{run.out} holds no run to resume; leave --resume away to begin one")
        check_config(run.out, settings)
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
    traces = [CHECKPOINT, RESULT, "answers/requests/*.json", "answers/chunks/*.safetensors"]
    return any(any(out.glob(trace)) for trace in traces)


def _new_student(spec: NetworkSpec, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec)


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
        f"{len(public.unlabelled):,} without, {len(public.test):,} for the test",
    )
    screen.fact("Student", f"{spec.name}, {count_parameters(student):,} parameters")
    options = ", ".join(f"{key} {value}" for key, value in method_options(method).items())
    screen.fact("Method", f"{method.name} ({options})" if options else method.name)


def _source(run: Run, method: Method, screen: Screen, *, agreed: bool) -> Source | None:
    if run.teacher == NO_TEACHER or not method.needs:
        return None
    kind, separator, folder = run.teacher.partition(":")
    if kind == "file" and separator:
        if not folder:
            raise UserError("file: needs a teacher's folder behind it: file:DIR")
        return LocalSource(Path(folder), run.trainer.device, screen)
    return ServiceSource(
        run.teacher,
        run.connection,
        run.queries.answers or run.out / "answers",
        run.queries.query_batch,
        screen,
        agreed=agreed,
    )


def _blank(taps: Mapping[str, AnswerTap]) -> dict[str, Tensor]:
    """Answers to two samples that say nothing, for the rehearsal."""
    return {name: torch.zeros(2, *tap.shape) for name, tap in taps.items()}


def _bind(
    method: Method,
    student: nn.Module,
    spec: NetworkSpec,
    taps: Mapping[str, AnswerTap],
    given: Mapping[str, tuple[str, ...]],
    values: Mapping[str, Tensor],
    seed: int,
) -> Objective:
    """The method bound to the student; its own modules begin as the seed says, run after run."""
    stages = stages_of(spec)
    paths = pair_taps(taps, student, spec.input_shape, stages, given)
    binding = Binding(student, spec.input_shape, spec.classes, taps, paths, values, stages)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return method.build(binding)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{error}; name the student's module with --hint TAP=PATH") from error


def _train(
    run: Run,
    public: PublicData,
    student: nn.Module,
    objective: Objective,
    chosen: Chosen | None,
    answers: Answers | None,
    screen: Screen,
    *,
    resume: bool,
) -> History:
    data = TrainingData(
        labelled=public.labelled,
        labels=public.labels,
        answered=None if chosen is None else public.unlabelled[chosen.rows],
        answers={} if answers is None else answers.values,
    )
    watched = slice(0, _WATCHED)

    def validate(network: nn.Module) -> float:
        return accuracy(
            network,
            public.test[watched],
            public.test_labels[watched],
            normalise=public.normalisation,
            precision=run.trainer.precision,
        )

    return train(
        student,
        objective,
        data,
        run.trainer,
        normalise=public.normalisation,
        folder=run.out,
        resume=resume and (run.out / CHECKPOINT).exists(),
        validate=validate if len(public.test) else None,
        note=_note(answers),
        progress=screen.bars,
    )


def _note(answers: Answers | None) -> str:
    if answers is None:
        return ""
    origin = answers.provenance
    if origin.promise is None or origin.epsilon_spent is None:
        return UNPROTECTED.split(",", maxsplit=1)[0]
    return f"ε {origin.epsilon_spent:.3g}/{origin.promise.epsilon:g}"
