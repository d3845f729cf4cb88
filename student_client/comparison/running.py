"""A comparison from its options to its table: find out, ask, train seed by seed, write.

Its folder holds `config.toml`, `selection.json` and `answers/` (of a private service, shared by all
students), `runs/METHOD-TEACHER-SEED/` (each student with its checkpoint, curves and result), in
`runs/` also the layers of a local teacher, and the table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Final

from ktan.errors import UserError
from ktan.networks import default_hint, multiply_adds, stages_of
from ktan.precision import resolve_device
from ktan.threads import suit_threads
from ktan.trainer import CHECKPOINT
from student_client.binding import new_student
from student_client.comparison.facts import facts_of
from student_client.comparison.files import write_table
from student_client.comparison.lessons import Classroom, Material
from student_client.comparison.local_teacher import ComparedTeacher, load_local
from student_client.comparison.materials import (
    alone_material,
    local_material,
    local_offer,
    offered,
    remote_material,
    with_unlabelled,
)
from student_client.comparison.options import Comparison
from student_client.comparison.outcomes import Cell, Outcome, TeacherKind, read_outcome
from student_client.comparison.table import table_of
from student_client.comparison.text import screen_text
from student_client.config import CONFIG, check_config, write_config
from student_client.errors import TeacherUnavailable
from student_client.options import LOCAL, hint_paths, network_spec
from student_client.public_data import PublicData
from student_client.queries import Chosen, choose, read_selection, write_selection
from student_client.results import RESULT
from student_client.screen import Screen
from student_client.sources import ServiceSource
from student_client.tap_choice import Taps, used_by_any

_RUNS: Final = "runs"
_MAY_CHANGE: Final = frozenset({"methods", "seeds", "together", "skip-impossible"})
"""A comparison may grow: a finished student stays what it is."""

Materials = Mapping[TeacherKind, Material]


def compare(
    comparison: Comparison, screen: Screen, *, resume: bool, agreed: bool
) -> dict[str, Any]:
    """Makes the table and returns what `comparison.json` says.

    agreed: pay for answers without asking. Raises UserError, TeacherError or TeacherUnavailable;
    at these and at ctrl-C the folder keeps what there is, and `resume` goes on from it.
    """
    comparison.check()
    _open_folder(comparison, resume=resume)
    try:
        return _compare(comparison, screen, resume=resume, agreed=agreed)
    except (KeyboardInterrupt, TeacherUnavailable):
        if _begun(comparison.out):
            screen.say(
                "interrupted; nothing is lost. Go on with\n"
                f"  student-client compare --config {comparison.out / CONFIG} --resume"
            )
        raise


def _compare(
    comparison: Comparison, screen: Screen, *, resume: bool, agreed: bool
) -> dict[str, Any]:
    loaded = PublicData.load(comparison.data, comparison.recipe)
    public = loaded.holding_out(comparison.validation)
    if not len(public.test):
        raise UserError("a comparison measures on test samples, and there are none; give --test")
    trainer = comparison.trainer
    spec = network_spec(comparison.student, public.input_shape, len(public.classes))
    suit_threads((trainer.labelled_batch + trainer.answered_batch) * multiply_adds(spec))
    room = Classroom(
        public, spec, stages_of(spec), comparison.resolved(), hint_paths(comparison.student)
    )
    local = None
    if comparison.local is not None:
        device = resolve_device(trainer.device)
        local = load_local(
            comparison.local, public, device, trainer.precision, comparison.local_draw
        )
    facts = facts_of(comparison, public, spec, local)
    _introduce(screen, comparison, room, local)
    cells, materials = _materials(comparison, room, local, screen, resume=resume, agreed=agreed)
    folders = {cell: comparison.out / _RUNS / cell.folder for cell in cells}
    found = {cell: read_outcome(cell, folders[cell] / RESULT) for cell in cells}
    outcomes = {cell: outcome for cell, outcome in found.items() if outcome is not None}
    if outcomes:
        screen.fact("Finished", f"{len(outcomes):,} of {len(cells):,} students before")
    for seed in comparison.seeds:
        left = [cell for cell in cells if cell.seed == seed and cell not in outcomes]
        for group, material in _groups(left, room, materials, comparison.together):
            started = time.monotonic()
            trained = room.train(
                group, material, comparison.trainer_of(seed), folders, progress=screen.bars
            )
            outcomes.update({outcome.cell: outcome for outcome in trained})
            _report(screen, trained, outcomes, time.monotonic() - started)
            write_table(comparison.out, table_of(outcomes.values()), facts)
    rows = table_of(outcomes.values())
    content = write_table(comparison.out, rows, facts)
    screen.say()
    screen.say(screen_text(rows, facts))
    return content


def _materials(
    comparison: Comparison,
    room: Classroom,
    local: ComparedTeacher | None,
    screen: Screen,
    *,
    resume: bool,
    agreed: bool,
) -> tuple[list[Cell], Materials]:
    """All students that can be taught, and with what; asks, and pays, once it is known."""
    public, out = room.public, comparison.out
    source = _source(comparison, screen, agreed=agreed)
    with closing(source) if source is not None else nullcontext():
        offers: dict[TeacherKind, Material] = {"none": alone_material(public, None)}
        if local is not None:
            offers["local"] = local_offer(public, local, room.methods.values(), room.spec)
        chosen = read_selection(out, public) if resume else None
        if source is not None:
            offers["remote"] = offered(public, source.prepare(public, chosen))
        cells = _possible(comparison, room, offers, screen)
        if source is not None and any(cell.teacher == "remote" for cell in cells):
            if chosen is None:
                chosen = _choose(comparison, room, screen)
                write_selection(out, chosen)
            answers = source.answers(public, chosen)
            offers["remote"] = remote_material(public, chosen, offers["remote"], answers)
    materials = offers | {"none": alone_material(public, chosen)}
    if local is not None:
        materials["local"] = local_material(
            public, chosen, local, offers["local"], out / _RUNS, screen
        )
    return cells, materials


def _possible(
    comparison: Comparison, room: Classroom, offers: Materials, screen: Screen
) -> list[Cell]:
    """The students that can be taught. Raises UserError when that is not all, unless told so."""
    obstacles: dict[tuple[str, TeacherKind], str] = {}
    for cell in comparison.cells():
        place = (cell.method, cell.teacher)
        if cell.seed == comparison.seeds[0]:
            reason = room.obstacle(room.methods[cell.method], offers[cell.teacher])
            if reason is not None:
                obstacles[place] = reason
    texts = [f"{method} ({teacher}): {why}" for (method, teacher), why in obstacles.items()]
    if texts and not comparison.skip_impossible:
        raise UserError(
            f"not every method can be taught: {'; '.join(texts)}; leave these out of --methods, "
            "or give --skip-impossible"
        )
    for text in texts:
        screen.fact("Left out", text)
    return [cell for cell in comparison.cells() if (cell.method, cell.teacher) not in obstacles]


def _choose(comparison: Comparison, room: Classroom, screen: Screen) -> Chosen:
    """What is asked: one choice for all seeds, so that each answer is paid once."""
    first = comparison.trainer_of(comparison.seeds[0])
    student = new_student(room.spec, first.seed)
    chosen = choose(
        room.public, student, default_hint(room.spec), comparison.queries, first,
        progress=screen.bars,
    )  # fmt: skip
    screen.fact(
        "Queries",
        f"{len(chosen.rows):,} of {len(room.public.unlabelled):,} public samples, chosen by "
        f"{comparison.queries.select}, for all students",
    )
    return chosen


def _groups(
    cells: Sequence[Cell], room: Classroom, materials: Materials, together: int | None
) -> Iterator[tuple[list[Cell], Material]]:
    """Students that share their batches, at most `together` of them at once.

    Who asks nobody sits with the others, where there are any.
    """
    host: TeacherKind = next(kind for kind in ("local", "remote", "none") if kind in materials)
    shared: dict[tuple[TeacherKind, bool], list[Cell]] = {}
    for cell in cells:
        kind = host if cell.teacher == "none" else cell.teacher
        # Views of unlabelled samples would pass through the norms of those who do not ask for them.
        apart = room.looks_at_unlabelled(room.methods[cell.method], materials[kind])
        shared.setdefault((kind, apart), []).append(cell)
    for (kind, apart), group in shared.items():
        material = materials[kind]
        if apart:
            material = with_unlabelled(material, room.public.unlabelled)
        size = together or len(group)
        for start in range(0, len(group), size):
            yield group[start : start + size], material


def _source(comparison: Comparison, screen: Screen, *, agreed: bool) -> ServiceSource | None:
    if comparison.remote is None:
        return None
    used = used_by_any(comparison.resolved().values())

    def taps(published: Taps) -> Taps:
        if comparison.queries.all_taps:
            return published
        # Where no method can be taught nothing is asked at all.
        return used(published) or published

    return ServiceSource(
        comparison.remote,
        comparison.connection,
        comparison.queries.answers or comparison.out / "answers",
        comparison.queries.query_batch,
        screen,
        agreed=agreed,
        in_flight=comparison.queries.in_flight,
        taps=taps,
    )


def _open_folder(comparison: Comparison, *, resume: bool) -> None:
    out, settings = comparison.out, comparison.settings()
    if resume:
        if not (out / CONFIG).exists():
            raise UserError(
                f"{out} holds no comparison to resume; leave --resume away to begin one"
            )
        check_config(out, settings, comparison.defaults(), "compare", _MAY_CHANGE)
    elif _begun(out):
        raise UserError(
            f"{out} already holds a comparison; go on with it by --resume, "
            "or name another folder with --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_config(out, settings, "compare")


def _begun(out: Path) -> bool:
    """Whether something was paid for or trained."""
    traces = [
        f"{_RUNS}/*/{CHECKPOINT}",
        f"{_RUNS}/*/{RESULT}",
        "answers/requests/*.json",
        "answers/*/*.safetensors",
    ]
    return any(any(out.glob(trace)) for trace in traces)


def _introduce(
    screen: Screen, comparison: Comparison, room: Classroom, local: ComparedTeacher | None
) -> None:
    public = room.public
    screen.fact(
        "Data",
        f"{public.name}: {len(public.labelled):,} public samples with labels, "
        f"{len(public.unlabelled):,} without, {len(public.test):,} for the test",
    )
    screen.fact("Student", room.spec.name)
    if local is not None:
        screen.fact("Local", f"{local.name} in {comparison.local}, UNPROTECTED: without noise")
    screen.fact("Methods", f"{', '.join(comparison.methods)}, and the student alone")
    screen.fact("Seeds", ", ".join(map(str, comparison.seeds)))


def _report(
    screen: Screen,
    trained: Sequence[Outcome],
    outcomes: Mapping[Cell, Outcome],
    seconds: float,
) -> None:
    """A line for each student that is finished now."""
    for outcome in trained:
        text = outcome.cell.title
        alone = outcomes.get(Cell(LOCAL, "none", outcome.cell.seed))
        if outcome.accuracy is None:
            text += f": DIVERGED, the loss was no longer finite at step {outcome.steps:,}"
        else:
            text += f": {100 * outcome.accuracy:.2f} %"
            if alone is not None and alone is not outcome and alone.accuracy is not None:
                text += f", {100 * (outcome.accuracy - alone.accuracy):+.2f} points"
        screen.say(text)
    screen.say(f"  {len(trained)} together, in {seconds:,.0f} s")
