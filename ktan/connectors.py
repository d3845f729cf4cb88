"""Connectors: small trainable maps from a student's feature to the shape of a teacher's hint."""

import torch
from torch import Tensor, nn

from ktan.derivation import resized
from ktan.errors import UserError
from ktan.tap_kinds import TapKind


class Connector(nn.Module):
    """r(F_s): brings [n, *student] to [n, *teacher]; belongs to the method, dropped at export.

    vector → vector: linear. map → vector: mean over positions, then linear. map → map: 1×1
    convolution, then average pooling or bilinear interpolation where sizes differ. Raises UserError
    for any other two shapes.
    """

    def __init__(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
        super().__init__()
        self.teacher = teacher
        if len(teacher) == 1 and len(student) in (1, 3):
            self.project: nn.Module = nn.Linear(student[0], teacher[0])
        elif len(teacher) == 3 and len(student) == 3:
            self.project = nn.Conv2d(student[0], teacher[0], 1)
        else:
            raise UserError(
                f"no connector leads from a student's feature of shape {list(student)} to a hint "
                f"of {list(teacher)}; name a module that puts out a map [c, h, w], or a vector for "
                "a vector, with --hint TAP=PATH"
            )

    def forward(self, features: Tensor) -> Tensor:
        if len(self.teacher) == 1:
            pooled: Tensor = features.mean(dim=(2, 3)) if features.ndim == 4 else features
            projected: Tensor = self.project(pooled)
            return projected
        return resized(self.project(features), (self.teacher[1], self.teacher[2]))


class ChannelScale(nn.Module):
    """a_c·F_s + b_c: a feature that has its teacher's shape, on its teacher's scale.

    For a teacher-to-student layer, whose output the student's own map imitates channel by channel:
    nothing is mixed, so that what the student learns is in the map and not in a connector.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        ones = (shape[0], *(1 for _ in shape[1:]))
        self.scale = nn.Parameter(torch.ones(ones))
        self.shift = nn.Parameter(torch.zeros(ones))

    def forward(self, features: Tensor) -> Tensor:
        if len(self.shape) == 1 and features.ndim == 4:
            features = features.mean(dim=(2, 3))
        return features * self.scale + self.shift


class NormedConnector(nn.Module):
    """1×1 convolution and batch norm, from map to map: AB's connector (Heo et al. 2019).

    It stands there for equal shapes too, as in the paper: what is compared with zero is a channel
    of the connector's, not of the student's.
    """

    def __init__(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
        super().__init__()
        self.size = (teacher[1], teacher[2])
        self.project = nn.Conv2d(student[0], teacher[0], 1, bias=False)
        self.norm = nn.BatchNorm2d(teacher[0])

    def forward(self, features: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.project(features))
        return resized(normed, self.size)


class FlowConnector(nn.Module):
    """From a student's products [c, c'] to those of another width, or to a vector of them.

    To a matrix: A·G·Bᵀ, which is what the products of linearly connected maps would be. To a
    vector, which is a teacher's products reduced: linear on the flattened ones.
    """

    def __init__(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
        super().__init__()
        self.left: nn.Module | None = None
        if len(teacher) == 2:
            self.left = nn.Linear(student[0], teacher[0], bias=False)
            self.right = nn.Linear(student[1], teacher[1], bias=False)
        else:
            self.right = nn.Linear(student[0] * student[1], teacher[0])

    def forward(self, products: Tensor) -> Tensor:
        if self.left is None:
            reduced: Tensor = self.right(products.flatten(1))
            return reduced
        connected: Tensor = self.left(self.right(products).transpose(1, 2))
        return connected.transpose(1, 2)


def connector(kind: TapKind, student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    """What stands between a student's feature and the answer it imitates, by the tap's kind.

    A teacher-to-student layer's output of the student's own shape is only scaled; everything else
    goes through a `Connector`. Raises UserError where there is none.
    """
    own = student if len(teacher) == 3 else student[:1]
    if kind == "tsl" and own == teacher:
        return ChannelScale(teacher)
    return Connector(student, teacher)
