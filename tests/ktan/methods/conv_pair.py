"""A tiny convolutional student beside a tiny local teacher, for tests of methods that read maps."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ktan.data import Normalisation
from ktan.methods import Batch, Binding, Method, Objective, View
from ktan.networks import NetworkSpec, build, stages_of
from ktan.pairing import pair_taps
from ktan.teachers.live import LiveTeacher

SHAPE, CLASSES = (3, 8, 8), 3
NORMALISE = Normalisation((127.5,) * 3, (73.6,) * 3)
EQUAL, WIDER = (4, 4, 6, 8), (4, 8, 10, 12)
"""Widths of the student's own kind, and of a teacher with more channels in each stage."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A method bound to a student and a teacher, and a batch with the teacher's answers."""

    student: nn.Module
    teacher: LiveTeacher
    objective: Objective
    batch: Batch

    def view(self, *, bf16: bool = False) -> View:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return self.objective.observe(self.student, self.batch)

    def loss(self, term: str, *, bf16: bool = False) -> Tensor:
        """The student's term, weighted."""
        return self.objective.losses("student", self.view(bf16=bf16), self.batch)[term]

    def answered(self, change: Callable[[Tensor], Tensor]) -> "Scene":
        """With every answer changed."""
        answers = {name: change(value) for name, value in self.batch.answers.items()}
        return replace(self, batch=replace(self.batch, answers=answers))

    def gradients(self, term: str) -> dict[str, Tensor]:
        """Parameter of the student's, or of its connectors (`connector.…`) → gradient of a term;
        those that it does not reach are left out."""
        connectors = nn.ModuleDict({"connector": self.objective.owned})
        named = {**dict(self.student.named_parameters()), **dict(connectors.named_parameters())}
        found = torch.autograd.grad(self.loss(term), list(named.values()), allow_unused=True)
        return {
            name: gradient
            for name, gradient in zip(named, found, strict=True)
            if gradient is not None and gradient.any()
        }


class Given(nn.Module):
    """A student that puts out maps given to it."""

    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Identity() for _ in maps)
        self.given = maps

    def forward(self, samples: Tensor) -> Tensor:
        count = len(samples)
        for module, value in zip(self.maps, self.given, strict=True):
            module(value[:count])
        return torch.zeros(count, 3)


def spec(widths: tuple[int, ...]) -> NetworkSpec:
    return NetworkSpec("resnet8", SHAPE, CLASSES, {"widths": list(widths)})


def network(widths: tuple[int, ...], seed: int) -> nn.Module:
    """In evaluation mode, so that equal weights make equal maps."""
    torch.manual_seed(seed)
    return build(spec(widths)).eval()


def scene(
    method: Method,
    *,
    teacher: tuple[int, ...] = EQUAL,
    same: bool = False,
    samples: int = 6,
) -> Scene:
    """`same`: the student is its teacher."""
    student = network(EQUAL, seed=1 if same else 2)
    live = LiveTeacher([network(teacher, 1)], spec(teacher), NORMALISE, (), precision="float32")
    live.read(method.teacher_taps(live.stages))
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (samples, *SHAPE), generator=generator).to(torch.uint8)
    answers = live.answer(images)
    stages = stages_of(spec(EQUAL))
    paths = pair_taps(live.taps, student, SHAPE, stages)
    torch.manual_seed(4)
    objective = method.build(
        Binding(student, SHAPE, CLASSES, live.taps, paths, answers, stages, live.stages)
    )
    labels = torch.randint(0, CLASSES, (samples,), generator=generator)
    answered = NORMALISE(images)
    batch = Batch(answered[:0], labels[:0], answered, answers, labels)
    return Scene(student, live, objective, batch)


def taught_teacher(scene: Scene) -> bool:
    """Whether anything could reach the teacher: a gradient asked of it, or one taken."""
    return any(
        parameter.requires_grad or parameter.grad is not None
        for network in scene.teacher.networks
        for parameter in network.parameters()
    )
