"""Students trained together end as if each were alone, whatever stops them; stages and rounds."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.methods import Binding, Objective, Stage, Term
from ktan.methods.combination import parse_method
from ktan.networks import NetworkSpec, build, stages_of
from ktan.pairing import pair_taps
from ktan.schedule import in_rounds
from ktan.teachers.live import LiveTeacher
from ktan.trainer import Lesson, TrainerOptions, train, train_together
from ktan.training_data import TrainingData

SPEC = NetworkSpec("resnet8", (3, 8, 8), 3, {"widths": [2, 2, 3, 4]})
NORMALISE = Normalisation((127.5,) * 3, (73.6,) * 3)
OPTIONS = TrainerOptions(
    steps=12, answered_batch=8, labelled_batch=4, precision="float32", augment="crop-flip",
    checkpoint_every=5,
)  # fmt: skip
METHODS = ("local", "fitnet", "at")


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(0, 256, (count, 3, 8, 8), generator=generator).to(torch.uint8)
    return samples, torch.randint(0, 3, (count,), generator=generator)


def live() -> LiveTeacher:
    torch.manual_seed(1)
    return LiveTeacher([build(SPEC)], SPEC, NORMALISE, (), precision="float32")


def lessons(
    teacher: LiveTeacher,
    names: tuple[str, ...],
    folder: Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> list[Lesson]:
    """Students of one seed; the teacher reads the taps of all their methods."""
    methods = [parse_method(name, dict(settings or {})) for name in names]
    teacher.read({t.name: t for m in methods for t in m.teacher_taps(teacher.stages)}.values())  # type: ignore[arg-type]
    answers = teacher.answer(images(32, 0)[0])
    made = []
    for method in methods:
        torch.manual_seed(2)
        student = build(SPEC)
        own = {t.name for t in method.teacher_taps(teacher.stages)}
        taps = {name: tap for name, tap in teacher.taps.items() if name in own}
        stages = stages_of(SPEC)
        paths = pair_taps(taps, student, (3, 8, 8), stages)
        binding = Binding(student, (3, 8, 8), 3, taps, paths, answers, stages)
        place = None if folder is None else folder / method.name
        made.append(Lesson(student, method.build(binding), place))
    return made


def data(teacher: LiveTeacher) -> TrainingData:
    samples, labels = images(32, 0)
    nothing = samples[:0], labels[:0]
    return TrainingData(*nothing, samples, answered_labels=labels, teacher=teacher)


def taught(names: tuple[str, ...], **arguments: object) -> list[Lesson]:
    teacher = live()
    made = lessons(teacher, names)
    train_together(made, data(teacher), OPTIONS, normalise=NORMALISE, progress=False, **arguments)  # type: ignore[arg-type]
    return made


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_each_student_ends_as_if_it_were_alone() -> None:
    together = taught(METHODS)
    for name, lesson in zip(METHODS, together, strict=True):
        (alone,) = taught((name,))
        assert same(alone.student, lesson.student)
        assert same(alone.objective, lesson.objective)
    assert not same(together[0].student, together[1].student)


def test_students_that_stopped_at_different_steps_resume_together(tmp_path: Path) -> None:
    whole = taught(METHODS)
    teacher = live()
    made = lessons(teacher, METHODS, tmp_path)

    class Stop(Exception):
        pass

    def stop(_: nn.Module) -> float:
        raise Stop

    # The first alone to its end; the second to step 5, the third not at all.
    train_together([made[0]], data(teacher), OPTIONS, normalise=NORMALISE, progress=False)
    with pytest.raises(Stop):
        train_together(
            [made[1], replace(made[2], validate=stop)],
            data(teacher), OPTIONS, normalise=NORMALISE, progress=False,
        )  # fmt: skip
    teacher = live()
    again = lessons(teacher, METHODS, tmp_path)
    histories = train_together(
        again, data(teacher), OPTIONS, normalise=NORMALISE, resume=True, progress=False
    )
    for one, other in zip(whole, again, strict=True):
        assert same(one.student, other.student)
    assert [history.curves["local"][-1][0] for history in histories] == [12, 12, 12]


def staged(student: nn.Module) -> Objective:
    """A warm-up of one term, then three rounds of both."""
    terms = [
        Term("warm", "student", 1.0, lambda view, batch: view.logits.square().mean()),
        Term("true", "student", 1.0, lambda view, batch: torch.nn.functional.cross_entropy(
            view.known_logits, batch.all_labels)),
    ]  # fmt: skip
    stages = in_rounds((Stage("start", 1, ("warm",)), Stage("training", 3)), 3)
    return Objective(terms, stages=stages)


def ask(asked: list[int]):  # type: ignore[no-untyped-def]
    samples, labels = images(32, 0)

    def more(portion: int, student: nn.Module) -> TrainingData:
        asked.append(portion)
        count = 8 * (portion + 1)
        return TrainingData(samples[:4], labels[:4], samples[4:count], {}, labels[4:count])

    return more


def run_in_rounds(
    folder: Path | None = None, resume: bool = False, stop: int = 0
) -> tuple[nn.Module, list[int]]:
    torch.manual_seed(2)
    student = build(SPEC)
    asked: list[int] = []
    more = ask(asked)
    seen = []

    class Stop(Exception):
        pass

    def validate(_: nn.Module) -> float:
        seen.append(1)
        if len(seen) == stop:
            raise Stop
        return 0.0

    options = replace(OPTIONS, steps=16, checkpoint_every=3)
    try:
        train(
            student, staged(student), more(0, student), options, normalise=NORMALISE,
            folder=folder, resume=resume, validate=validate, ask=more, progress=False,
        )  # fmt: skip
    except Stop:
        assert stop
    return student, asked[1:]


@pytest.mark.parametrize("stop", [2, 3, 4, 5])
def test_rounds_are_asked_in_turn_and_a_resumed_run_is_the_same(tmp_path: Path, stop: int) -> None:
    whole, asked = run_in_rounds()
    assert asked == [1, 2]
    run_in_rounds(tmp_path, stop=stop)
    resumed, again = run_in_rounds(tmp_path, resume=True)
    assert same(whole, resumed)
    # Checkpoints lie at 3, 6, 9, 12; the rounds begin at 8 and 12.
    assert again == {2: [1, 2], 3: [1, 2], 4: [1, 2], 5: [2]}[stop]


def test_only_a_stages_terms_are_active() -> None:
    torch.manual_seed(2)
    student = build(SPEC)
    objective = staged(student)
    more = ask([])
    history = train(
        student, objective, more(0, student), replace(OPTIONS, steps=16), normalise=NORMALISE,
        ask=more, progress=False,
    )  # fmt: skip
    assert [step for step, _ in history.curves["warm"]] == list(range(1, 17))
    assert [step for step, _ in history.curves["true"]] == list(range(5, 17))


def test_a_bounded_terms_gradient_is_no_longer_than_the_one_that_bounds_it() -> None:
    student = nn.Linear(3, 2, bias=False)
    terms = [
        Term("task", "student", 1.0, lambda view, batch: view.logits.sum()),
        Term("pull", "student", 100.0, lambda view, batch: view.logits[:, 0].sum(), "task"),
        Term("weak", "student", 0.01, lambda view, batch: view.logits[:, 1].sum(), "task"),
    ]
    objective = Objective(terms)
    from ktan.methods import Batch

    batch = Batch(torch.ones(1, 3), torch.zeros(1, dtype=torch.int64), torch.empty(0, 3), {},
                  torch.empty(0, dtype=torch.int64))  # fmt: skip
    found = objective.losses("student", objective.observe(student, batch), batch)
    objective.backward(found, list(student.parameters()))
    task = torch.ones(2, 3)
    pull = torch.tensor([[1.0] * 3, [0.0] * 3])
    weak = torch.tensor([[0.0] * 3, [0.01] * 3])
    expected = task + pull * (task.norm() / pull.norm()) + weak
    assert student.weight.grad is not None
    torch.testing.assert_close(student.weight.grad, expected)


def test_several_students_cannot_choose_queries() -> None:
    teacher = live()
    made = lessons(teacher, ("local", "at"))
    with pytest.raises(ValueError, match="one by one"):
        train_together(
            made, data(teacher), OPTIONS, normalise=NORMALISE, ask=ask([]), progress=False
        )


def test_too_few_steps_for_the_stages_is_a_users_mistake() -> None:
    torch.manual_seed(2)
    student = build(SPEC)
    with pytest.raises(UserError, match="3 steps leave none for the stage"):
        train(
            student, staged(student), ask([])(0, student), replace(OPTIONS, steps=3),
            normalise=NORMALISE, progress=False,
        )  # fmt: skip
