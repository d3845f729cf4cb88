"""Within a step nothing waits for the device: no value is ever fetched from a tensor."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ktan.data import Augment, Normalisation
from ktan.methods import Binding
from ktan.methods.combination import parse_method
from ktan.networks import NetworkSpec, build, stages_of
from ktan.pairing import pair_taps
from ktan.pupil import Lesson, Pupil
from ktan.schedule import StagePlan
from ktan.teachers.live import LiveTeacher
from ktan.teachers.tsl_training import LayerRecipe
from ktan.trainer_options import TrainerOptions
from ktan.training_data import BatchStream, TrainingData

SPEC = NetworkSpec("resnet8", (3, 8, 8), 3, {"widths": [2, 2, 3, 4]})
NORMALISE = Normalisation((127.5,) * 3, (73.6,) * 3)
CPU = torch.device("cpu")


class Fetched(TorchDispatchMode):
    """Counts `.item()`, `float()`, `bool()` and the like of a tensor."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_trap_catches_what_would_wait() -> None:
    with Fetched() as fetched:
        assert float(torch.ones(1)) == 1
        assert bool(torch.ones(1) > 0)
    assert fetched.count == 2


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "float32") for name in ("ktan", "at", "meal", "ksanc", "kd-svd", "byot")),
        ("ktan", "fp16"),
    ],
)
def test_a_step_fetches_nothing(name: str, precision: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(0, 256, (16, 3, 8, 8), generator=generator).to(torch.uint8)
    labels = torch.arange(16) % 3
    torch.manual_seed(1)
    teacher = LiveTeacher([build(SPEC)], SPEC, NORMALISE, (), precision="float32")
    method = parse_method(name, {})
    teacher.read(method.teacher_taps(teacher.stages), SPEC)
    teacher.prepare(samples, labels, LayerRecipe(steps=1))
    student, stages = build(SPEC), stages_of(SPEC)
    taps = teacher.taps
    paths = pair_taps(taps, student, (3, 8, 8), stages)
    answers: dict[str, Tensor] = teacher.answer(samples)
    objective = method.build(
        Binding(student, (3, 8, 8), 3, taps, paths, answers, stages, teacher.stages)
    )
    options = TrainerOptions(steps=10, precision=precision, device="cpu", optimiser="sgd")
    pupil = Pupil(Lesson(student, objective), options, CPU, resume=False)
    data = TrainingData(samples[:0], labels[:0], samples, answered_labels=labels, teacher=teacher)
    stream = BatchStream(
        data, labelled_batch=1, answered_batch=8, seed=0, device=CPU, normalise=NORMALISE,
        augment=Augment("crop-flip"),
    )  # fmt: skip
    plan = StagePlan(objective.stages, 10)
    # The first step makes what is made once.
    pupil.step(plan.at(0), stream.batch(0))
    with Fetched() as fetched:
        pupil.step(plan.at(1), stream.batch(1))
    assert fetched.count == 0
    before = torch.cat([value.flatten() for value in student.parameters()])
    assert torch.isfinite(before).all()
    pupil.close()
