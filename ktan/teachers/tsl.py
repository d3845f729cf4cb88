"""The teacher-to-student layer, TSL (Liu et al. 2018): a teacher's map in its student's shape.

    TSL(F) = ReLU(GN(W ∗ F)),    3×3, behind a tapped map F [c', h', w'] of the teacher

F is first brought to the student's height and width. The layer is trained first, the teacher
frozen, through a linear classifier on its pooled output, so that its map keeps what the teacher
knows; then it is frozen and the classifier dropped. The ReLU makes it comparable with a student's
map behind its own. The norm is over all of one sample's values (a group norm of one group): it
brings every teacher to one scale whatever its features' unit is, keeps each channel on both sides
of its ReLU, and no sample sees another, as it would in a batch norm.

A layer is plain tensors, so that those of k teachers stack and map over k like their networks. In
a teacher's state they stand beside the network's parameters, as `tsl:TAP:PART`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.derivation import resized
from ktan.errors import UserError
from ktan.networks import NetworkSpec, NetworkStages, build, stages_of
from ktan.tap_reader import tap_shapes
from ktan.taps import Tap

_PREFIX = "tsl:"
PARTS = ("convolution", "scale", "shift")


@dataclass(frozen=True, eq=False)
class TeacherToStudentLayer:
    """One trained layer, or one that is being trained."""

    shape: tuple[int, ...]
    """What it puts out for one sample: [c, h, w], or [c], the mean of its map over positions."""
    weights: Mapping[str, Tensor]
    """convolution [c, c', 3, 3], scale [c] and shift [c]."""

    def __call__(self, feature: Tensor) -> Tensor:
        """The teacher's map, float [n, c', h', w'] → [n, *shape], nowhere negative."""
        if len(self.shape) == 3:
            feature = resized(feature, (self.shape[1], self.shape[2]))
        values = F.conv2d(feature, self.weights["convolution"], padding=1)
        values = F.relu(F.group_norm(values, 1, self.weights["scale"], self.weights["shift"]))
        return values if len(self.shape) == 3 else values.mean(dim=(2, 3))


def new_layer(channels: int, shape: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Weights of a fresh layer behind a map of `channels`, float32 on the CPU."""
    convolution = torch.empty(shape[0], channels, 3, 3)
    torch.nn.init.kaiming_normal_(
        convolution, nonlinearity="relu", generator=torch.Generator().manual_seed(seed)
    )
    return {
        "convolution": convolution,
        "scale": torch.ones(shape[0]),
        "shift": torch.zeros(shape[0]),
    }


def layer_in(state: Mapping[str, Tensor], tap: Tap) -> TeacherToStudentLayer | None:
    """A tap's layer in one teacher's state; None where the tap has none.

    Raises UserError for a TSL's tap whose layer is not there.
    """
    if tap.kind != "tsl":
        return None
    try:
        weights = {part: state[layer_name(tap, part)] for part in PARTS}
    except KeyError as error:
        raise UserError(
            f"the teacher has no trained layer for tap {tap.text}; train it anew with that tap"
        ) from error
    return TeacherToStudentLayer(tap.shape, weights)


def layer_name(tap: Tap, part: str) -> str:
    """What a part of a tap's layer is called in a teacher's state."""
    return f"{_PREFIX}{tap.name}:{part}"


def without_layers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own part of a teacher's state."""
    return {name: value for name, value in state.items() if not name.startswith(_PREFIX)}


def layers_only(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layers' part of a teacher's state."""
    return {name: value for name, value in state.items() if name.startswith(_PREFIX)}


def student_shape(student: NetworkSpec) -> tuple[int, ...]:
    """`shape_in` of a network of this kind; nothing is computed."""
    with torch.device("meta"):
        network = build(student)
    return shape_in(network, student.input_shape, stages_of(student))


def shape_in(
    student: nn.Module, input_shape: tuple[int, ...], stages: NetworkStages
) -> tuple[int, ...]:
    """Of the student's last map, or of the vector before its classifier where it has no maps."""
    path = stages.maps[-1] if stages.maps else stages.pooled
    return tap_shapes(student, input_shape, [path])[path]
