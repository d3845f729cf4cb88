"""The loop: alternation, exact resume, and what it leaves in its folder."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.history import History
from ktan.methods import METHODS, Batch, Objective, Term, View
from ktan.teacher import AnswerTap
from ktan.trainer import CHECKPOINT, TrainerOptions, train
from ktan.training_data import TrainingData
from tests.ktan.methods.bind import bind

SHAPE = (1, 8, 8)
NORMALISE = Normalisation((127.5,), (73.6,))
OPTIONS = TrainerOptions(
    steps=30, labelled_batch=8, answered_batch=12, precision="float32", augment="shift"
)
TAPS = {
    "probabilities": AnswerTap("probabilities", "probabilities", (3,), 0.1),
    "hint": AnswerTap("hint", "hint", (4,), 0.5),
}


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1)
        )
        self.classifier = nn.Linear(144, 3)

    def forward(self, samples: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(samples))
        return logits


def bars(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy images whose bright row tells the class."""
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.randint(0, 120, (count, *SHAPE), generator=generator)
    images[torch.arange(count), 0, labels * 2 + 1] += 130
    return images.to(torch.uint8), labels


def data(answered: bool = True) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    labelled, labels = bars(20, generator)
    if not answered:
        return TrainingData(labelled, labels)
    images, truth = bars(40, generator)
    noise = 0.1 * torch.randn(40, 3, generator=generator)
    hints = torch.eye(3)[truth] @ torch.randn(3, 4, generator=generator)
    return TrainingData(
        labelled,
        labels,
        images,
        {
            "probabilities": torch.eye(3)[truth] + noise,
            "hint": hints + 0.5 * torch.randn(40, 4, generator=generator),
        },
    )


def fresh(name: str = "ktan", part: TrainingData | None = None) -> tuple[Student, Objective]:
    torch.manual_seed(11)
    student = Student()
    answers = (part or data()).answers
    method = METHODS[name]()
    paths = {"hint": "features"} if name in ("ktan", "fitnet") else {}
    return student, bind(method, student, SHAPE, TAPS, paths, answers)


def run(
    options: TrainerOptions = OPTIONS,
    name: str = "ktan",
    part: TrainingData | None = None,
    **arguments: object,
) -> tuple[Student, Objective, History]:
    part = part or data()
    student, objective = fresh(name, part)
    history = train(
        student, objective, part, options, normalise=NORMALISE, progress=False, **arguments
    )
    return student, objective, history


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("name", ["local", "soft-logits", "fitnet", "ktan"])
def test_a_student_learns(name: str) -> None:
    options = replace(OPTIONS, steps=150, learning_rate=5e-3, augment="none")
    student, _, history = run(options, name, data(answered=name != "local"))
    images, truth = bars(300, torch.Generator().manual_seed(1))
    with torch.no_grad():
        hits = (student(NORMALISE(images)).argmax(dim=1) == truth).float().mean().item()
    assert hits > 0.9
    assert not student.training
    assert history.curves["local"][-1][1] < history.curves["local"][0][1]


def test_every_term_of_every_player_has_its_curve() -> None:
    _, _, history = run()
    assert set(history.curves) == {
        "local", "kd", "hint", "adversarial", "discriminator",
        "training_accuracy", "discriminator_accuracy",
    }  # fmt: skip
    assert all([step for step, _ in points] == list(range(1, 31)) for points in
               history.curves.values())  # fmt: skip


def test_same_seed_same_student_other_seed_another() -> None:
    one, _, _ = run()
    two, _, _ = run()
    three, _, _ = run(replace(OPTIONS, seed=1))
    assert same(one, two)
    assert not same(one, three)


def test_training_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    part = data()
    student, objective = fresh(part=part)
    torch.manual_seed(123)
    train(student, objective, part, OPTIONS, normalise=NORMALISE, progress=False)
    assert torch.equal(torch.rand(3), expected)


class Stop(Exception):
    """Ends a run at a checkpoint, as a power cut would."""


def cut_at(checkpoint: int) -> Callable[[nn.Module], float]:
    seen = []

    def validate(_: nn.Module) -> float:
        seen.append(1)
        if len(seen) == checkpoint:
            raise Stop
        return 0.0

    return validate


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_resumed_after_a_crash_the_weights_are_those_of_an_uninterrupted_run(
    tmp_path: Path, optimiser: str
) -> None:
    options = replace(OPTIONS, optimiser=optimiser, checkpoint_every=7)
    whole, objective, history = run(options, validate=lambda _: 0.0)
    with pytest.raises(Stop):
        run(options, folder=tmp_path, validate=cut_at(3))
    torch.manual_seed(999)
    resumed, other, curves = run(options, folder=tmp_path, resume=True, validate=lambda _: 0.0)
    assert same(whole, resumed)
    assert same(objective, other)
    assert curves.curves == history.curves


def test_ctrl_c_ends_after_the_step_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole, _, _ = run()

    part = data()
    student, objective = fresh(part=part)
    count = []

    def press(view: View, batch: Batch) -> Tensor:
        count.append(1)
        if len(count) == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return 0.0 * view.logits.sum()

    objective.terms = (*objective.terms, Term("press", "student", 1.0, press))
    with pytest.raises(KeyboardInterrupt):
        train(
            student, objective, part, OPTIONS, normalise=NORMALISE, folder=tmp_path, progress=False
        )
    assert len(count) == 13
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed, _, history = run(folder=tmp_path, resume=True)
    assert same(whole, resumed)
    assert history.curves["kd"][-1][0] == 30


def test_runs_in_a_thread_where_there_are_no_signals() -> None:
    students: list[Student] = []
    thread = threading.Thread(target=lambda: students.append(run()[0]))
    thread.start()
    thread.join()
    assert same(students[0], run()[0])


def test_resume_refuses_other_options_and_missing_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        run(folder=tmp_path, resume=True)
    run(folder=tmp_path)
    with pytest.raises(UserError, match=r"--learning-rate 0\.001, now 0\.1"):
        run(replace(OPTIONS, learning_rate=0.1), folder=tmp_path, resume=True)
    with pytest.raises(UserError, match="does not fit this run"):
        run(name="fitnet", folder=tmp_path, resume=True)
    (tmp_path / CHECKPOINT).write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="damaged"):
        run(folder=tmp_path, resume=True)


def test_folder_holds_checkpoint_history_and_scalars(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, _, history = run(folder=tmp_path)
    assert History.from_json(json.loads((tmp_path / "history.json").read_text())) == history
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(history.curves) <= set(events.Tags()["scalars"])
    written = [(event.step, event.value) for event in events.Scalars("kd")]
    np.testing.assert_allclose(written, history.curves["kd"], rtol=1e-6)


def test_a_loss_that_diverges_is_named() -> None:
    student, objective = fresh("soft-logits")
    bad = Term("runaway", "student", 1.0, lambda view, batch: view.logits.sum() * float("inf"))
    objective.terms = (*objective.terms, bad)
    with pytest.raises(UserError, match="'runaway' is no longer finite at step 1; lower"):
        train(student, objective, data(), OPTIONS, normalise=NORMALISE, progress=False)


def test_epochs_count_passes_over_the_answered_samples() -> None:
    _, _, history = run(replace(OPTIONS, steps=None, epochs=3))
    assert history.curves["kd"][-1][0] == 3 * 4
    _, _, history = run(replace(OPTIONS, steps=None, epochs=2), "local", data(answered=False))
    assert history.curves["local"][-1][0] == 2 * 3
    with pytest.raises(UserError, match="0 training steps"):
        run(replace(OPTIONS, steps=0))


def test_bar_shows_terms_speed_and_note(capfd: pytest.CaptureFixture[str]) -> None:
    part = data()
    student, objective = fresh(part=part)
    train(student, objective, part, OPTIONS, normalise=NORMALISE, note="ε = 3.2 of 4")
    shown = capfd.readouterr().err
    for word in ("kd ", "hint ", "adversarial ", "local ", "images/s", "ε = 3.2 of 4", "30/30"):
        assert word in shown


def test_players_alternate_with_optimisers_of_their_own() -> None:
    """The student's pass comes first, then D's turn, then the student's, in every step."""
    order: list[str] = []
    part = data()
    student, objective = fresh(part=part)
    losses = objective.losses
    objective.losses = lambda player, view, batch, stage: (  # type: ignore[method-assign]
        order.append(player) or losses(player, view, batch, stage)
    )
    student.register_forward_hook(lambda *_: order.append("forward"))
    train(student, objective, part, replace(OPTIONS, steps=3), normalise=NORMALISE, progress=False)
    assert order == ["forward", "discriminator", "student"] * 3


def test_a_discriminator_without_learning_rate_stays_and_the_student_moves() -> None:
    part = data()
    student, objective = fresh(part=part)
    judge = objective.owned["discriminator"]
    before = {k: v.clone() for k, v in judge.named_parameters()}
    weights = student.classifier.weight.detach().clone()
    options = replace(OPTIONS, steps=5, opponent_learning_rate=0.0)
    train(student, objective, part, options, normalise=NORMALISE, progress=False)
    assert all(torch.equal(before[k], v) for k, v in judge.named_parameters())
    assert not torch.equal(weights, student.classifier.weight)


def test_bf16_stays_close_to_float32() -> None:
    part = data()
    finals = []
    for precision in ("float32", "bf16"):
        options = replace(OPTIONS, precision=precision, steps=100, learning_rate=3e-3)
        student, objective = fresh("soft-logits", part)
        history = train(student, objective, part, options, normalise=NORMALISE, progress=False)
        assert all(parameter.dtype == torch.float32 for parameter in student.parameters())
        finals.append(history.last("kd"))
    assert finals[1] == pytest.approx(finals[0], rel=0.1)


def test_unlabelled_answers_alone_are_enough() -> None:
    whole = data()
    nothing = torch.empty(0, *SHAPE, dtype=torch.uint8)
    part = TrainingData(nothing, torch.empty(0, dtype=torch.int64), whole.answered, whole.answers)
    _, _, history = run(part=part)
    assert history.last("local") == 0
    assert history.last("kd") < history.curves["kd"][0][1]


def test_nothing_to_train_on_is_a_users_mistake() -> None:
    nothing = torch.empty(0, *SHAPE, dtype=torch.uint8)
    with pytest.raises(UserError, match="nothing to train on"):
        TrainingData(nothing, torch.empty(0, dtype=torch.int64))
    with pytest.raises(UserError, match="--labelled-batch"):
        run(replace(OPTIONS, labelled_batch=0))
