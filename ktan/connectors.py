"""Connectors: small trainable maps from a student's feature to the shape of a teacher's hint."""

import torch.nn.functional as F
from torch import Tensor, nn


class Connector(nn.Module):
    """r(F_s): brings [n, *student] to [n, *teacher]; belongs to the method, dropped at export.

    vector → vector: linear. map → vector: mean over positions, then linear. map → map: 1×1
    convolution, then average pooling or bilinear interpolation where sizes differ.
    """

    def __init__(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
        super().__init__()
        self.teacher = teacher
        if len(teacher) == 1 and len(student) in (1, 3):
            self.project: nn.Module = nn.Linear(student[0], teacher[0])
        elif len(teacher) == 3 and len(student) == 3:
            self.project = nn.Conv2d(student[0], teacher[0], 1)
        else:
            raise ValueError(
                f"no connector from a student's tap of shape {student} to a hint of {teacher}; "
                "choose a student's tap with as many dimensions as the hint"
            )

    def forward(self, features: Tensor) -> Tensor:
        if len(self.teacher) == 1:
            pooled: Tensor = features.mean(dim=(2, 3)) if features.ndim == 4 else features
            projected: Tensor = self.project(pooled)
            return projected
        projected = self.project(features)
        size = (self.teacher[1], self.teacher[2])
        if projected.shape[2] >= size[0] and projected.shape[3] >= size[1]:
            return F.adaptive_avg_pool2d(projected, size)
        return F.interpolate(projected, size, mode="bilinear", align_corners=False)
