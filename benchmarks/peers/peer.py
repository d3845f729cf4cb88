"""What a peer is: a public implementation's loss, and what it trains beside the student."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.methods.objective import Stage
from ktan.networks import NetworkSpec, NetworkStages, build, stages_of
from ktan.schedule import Place
from ktan.tap_reader import tap_shapes


@dataclass(frozen=True)
class Side:
    """One network of the pair: where its maps are, and of which shape."""

    stages: NetworkStages
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, spec: NetworkSpec) -> "Side":
        """By a dry run."""
        stages = stages_of(spec)
        paths = (*stages.maps, *stages.before_activation, stages.pooled)
        with torch.random.fork_rng(devices=[]):
            network = build(spec)
        return cls(stages, tap_shapes(network, spec.input_shape, paths))


@dataclass(frozen=True)
class Pair:
    """Student and teacher."""

    student: Side
    teacher: Side
    classes: int

    @classmethod
    def of(cls, student: NetworkSpec, teacher: NetworkSpec) -> "Pair":
        """By a dry run of each."""
        return cls(Side.of(student), Side.of(teacher), student.classes)


@dataclass(frozen=True)
class Seen:
    """What one network made of a batch."""

    logits: Tensor
    """float32 [n, classes]."""
    at: Mapping[str, Tensor]
    """Module path → float32, contiguous."""


class Peer(nn.Module):
    """A loss of the student, and the modules trained with it (parameters of this module)."""

    source = "plain cross-entropy"
    """Package or repository, and its class."""
    rate = 1.0
    """Learning rate of its own modules, relative to the student's."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair
        self.student_paths: tuple[str, ...] = ()
        self.teacher_paths: tuple[str, ...] = ()
        self.stages: tuple[Stage, ...] = (Stage("training"),)

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        """What the student and its modules minimise at this place of the run."""
        return F.cross_entropy(student.logits, labels)

    def reads(self, what: Callable[[Side], tuple[str, ...]]) -> None:
        """Taps the same points of both networks."""
        self.student_paths = what(self.pair.student)
        self.teacher_paths = what(self.pair.teacher)

    def initialised(self, share: float) -> None:
        """Two stages: the peer's loss alone for this share of the steps, then another loss."""
        self.stages = (Stage("initialisation", share), Stage("training", 1 - share))
