"""Every method there is, found in the folder: through the trainer, against a tiny live teacher.

What a method's own test says of its formulae is not repeated here. A line for each is printed.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ktan.data import Augment, Normalisation
from ktan.errors import UserError
from ktan.methods import METHODS, STUDENT, Batch, Binding, Method, Objective
from ktan.methods.combination import parse_method
from ktan.networks import NetworkSpec, build, stages_of
from ktan.pairing import pair_taps
from ktan.schedule import StagePlan
from ktan.teachers.live import LiveTeacher
from ktan.teachers.tsl_training import LayerRecipe
from ktan.trainer import Lesson, TrainerOptions, train_together
from ktan.training_data import BatchStream, TrainingData

SHAPE, CLASSES, SAMPLES = (3, 8, 8), 3, 24
NORMALISE = Normalisation((127.5,) * 3, (73.6,) * 3)
STUDENTS = NetworkSpec("resnet8", SHAPE, CLASSES, {"widths": [4, 4, 4, 8]})
TEACHERS = NetworkSpec("resnet8", SHAPE, CLASSES, {"widths": [4, 4, 6, 8]})
"""Of another width in the middle, where methods have to connect the two."""
OPTIONS = TrainerOptions(
    labelled_batch=4, answered_batch=8, unlabelled_batch=4, precision="float32", augment="crop-flip"
)
NAMES = (*METHODS, "ab+soft-logits")
STAGES = stages_of(STUDENTS)
_generator = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (SAMPLES, *SHAPE), generator=_generator).to(torch.uint8)
LABELS = torch.randint(0, CLASSES, (SAMPLES,), generator=_generator)


@dataclass(frozen=True, eq=False)
class World:
    """One method, bound anew: the same each time."""

    teacher: LiveTeacher
    data: TrainingData
    student: nn.Module
    objective: Objective


@cache
def taught_by(name: str) -> LiveTeacher:
    """What a method reads; teachers answer all its worlds, since none may change them."""
    method: Method = parse_method(name, {})
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(build(TEACHERS))
    teacher = LiveTeacher(networks, TEACHERS, NORMALISE, (), precision="float32")
    taps = {tap.name: tap for tap in method.teacher_taps(teacher.stages)}
    teacher.read(list(taps.values()), STUDENTS)
    teacher.prepare(IMAGES, LABELS, LayerRecipe(steps=4, batch=8, precision="float32"))
    return teacher


def world(name: str) -> World:
    teacher = taught_by(name)
    torch.manual_seed(3)
    student = build(STUDENTS).to(memory_format=torch.channels_last)
    objective = parse_method(name, {}).build(
        Binding(
            student=student,
            input_shape=SHAPE,
            classes=CLASSES,
            taps=teacher.taps,
            paths=pair_taps(teacher.taps, student, SHAPE, STAGES),
            answers=teacher.answer(IMAGES),
            stages=STAGES,
            teacher_stages=teacher.stages,
        )
    )
    data = TrainingData(
        IMAGES[:4],
        LABELS[:4],
        IMAGES[4:],
        answered_labels=LABELS[4:],
        teacher=teacher,
        unlabelled=IMAGES if objective.unlabelled else None,
    )
    return World(teacher, data, student, objective)


def steps_of(objective: Objective) -> int:
    """The fewest steps, four at least, of which each stage gets one and some two."""
    for steps in count(4):
        try:
            plan = StagePlan(objective.stages, steps)
        except UserError:
            continue
        if mid_stage(plan, steps) is not None:
            return steps
    raise AssertionError


def mid_stage(plan: StagePlan, steps: int) -> int | None:
    """The first step from the middle on that does not begin a stage."""
    within = (s for s in range(steps // 2, steps) if plan.at(s).stage is plan.at(s - 1).stage)
    return next(within, None)


def train(
    made: World, options: TrainerOptions, folder: Path | None = None, *, resume: bool = False
) -> dict[str, list[float]]:
    """Term → its curve."""
    lesson = Lesson(made.student, made.objective, folder)
    (history,) = train_together(
        [lesson], made.data, options, normalise=NORMALISE, resume=resume, progress=False
    )
    return {name: [value for _, value in curve] for name, curve in history.curves.items()}


@dataclass(frozen=True, eq=False)
class Whole:
    """A run from beginning to end."""

    made: World
    steps: int
    before: dict[str, Tensor]
    """The student's, as it began."""
    teachers: dict[str, Tensor]
    """Before the run."""
    curves: dict[str, list[float]]


@cache
def whole(name: str) -> Whole:
    made = world(name)
    steps = steps_of(made.objective)
    before, teachers = state(made.student), state(*made.teacher.networks)
    curves = train(made, replace(OPTIONS, steps=steps))
    return Whole(made, steps, before, teachers, curves)


def state(*modules: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers, copied."""
    return {
        f"{number}.{name}": value.detach().clone()
        for number, module in enumerate(modules)
        for name, value in module.state_dict().items()
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_its_student_and_leaves_its_teachers_alone(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = whole(name)
    made, after = run.made, state(run.made.student)
    assert all(value.isfinite().all() for value in after.values())
    moved = {key for key, value in after.items() if not torch.equal(value, run.before[key])}
    # Weights in every part of it, not only running statistics.
    assert {"0.classifier.weight", "0.features.stem.0.weight"} <= moved
    assert same(run.teachers, state(*made.teacher.networks))
    with capsys.disabled():
        # One row: name, students' terms and who else moves, stages, taps read.
        players = "/".join(p for p in made.objective.players if p != STUDENT) or "-"
        terms = ", ".join(term.name for term in made.objective.terms)
        print(
            f"\n{name:18} {len(made.teacher.taps)} taps, {len(made.objective.stages):2} stages, "
            f"{run.steps:3} steps, against {players}: {terms}",
            end="",
        )
    assert set(run.curves) > {term.name for term in made.objective.terms}
    assert all(math.isfinite(value) for curve in run.curves.values() for value in curve)


@pytest.mark.parametrize("name", NAMES)
def test_a_turn_moves_its_own_player_only(name: str) -> None:
    made = world(name)
    stream = BatchStream(
        made.data, labelled_batch=4, answered_batch=8, unlabelled_batch=4, seed=0,
        device=torch.device("cpu"), normalise=NORMALISE, augment=Augment("none"),
    )  # fmt: skip
    batch = stream.batch(0)
    objective, student = made.objective, made.student
    owned = {player: objective.learnables(player) for player in objective.players}
    owned[STUDENT] = [*student.parameters(), *owned[STUDENT]]
    view = objective.observe(student, batch)
    for player in objective.players:
        student.zero_grad(set_to_none=True)
        objective.zero_grad(set_to_none=True)
        with objective.turn_of(player):
            losses = objective.losses(player, view, batch)
            objective.backward(losses, owned[player])
        assert any(p.grad is not None and p.grad.any() for p in owned[player]), player
        for other in set(objective.players) - {player}:
            assert all(p.grad is None for p in owned[other]), f"{player} reaches {other}"
        view = objective.observe(student, batch)
    for network in made.teacher.networks:
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_run_cut_in_the_middle_of_a_stage_ends_with_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = whole(name)
    plan = StagePlan(run.made.objective.stages, run.steps)
    place = mid_stage(plan, run.steps)
    assert place
    options = replace(OPTIONS, steps=run.steps, checkpoint_every=place)
    draw = BatchStream.batch

    def cut(stream: BatchStream, step: int) -> Batch:
        if step == place:
            raise KeyboardInterrupt
        return draw(stream, step)

    begun, again = world(name), world(name)
    monkeypatch.setattr(BatchStream, "batch", cut)
    with pytest.raises(KeyboardInterrupt):
        train(begun, options, tmp_path / "run")
    monkeypatch.undo()
    train(again, options, tmp_path / "run", resume=True)
    one, other = (state(made.student, made.objective) for made in (run.made, again))
    assert same(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_in_bf16(name: str) -> None:
    made = world(name)
    steps = len(made.objective.stages)
    # A step for each.
    made.objective.stages = tuple(replace(stage, share=1.0) for stage in made.objective.stages)
    options = replace(OPTIONS, steps=steps, precision="bf16")
    before = state(made.student)
    curves = train(made, options)
    after = state(made.student)
    assert not same(before, after)
    assert all(value.isfinite().all() for value in after.values())
    assert all(math.isfinite(value) for curve in curves.values() for value in curve)
