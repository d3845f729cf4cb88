"""Residual networks for 32x32 images (He et al. 2016, section 4.2), narrow and wide."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.networks.norms import Norm, norm_layer
from ktan.networks.small import image_shape

NARROW = (16, 16, 32, 64)
"""Widths of the stem and the three stages of the CIFAR ResNets."""
WIDE = (32, 64, 128, 256)
"""Those of `wide-resnet8` and its like: RepDistiller's and mdistiller's `x4`."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is 1x1 where the shape changes (option B)."""

    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=norm == "none")
        self.norm1 = norm_layer(norm, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=norm == "none")
        self.norm2 = norm_layer(norm, after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=norm == "none"), norm_layer(norm, after)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] -> [n, after, h / stride, w / stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """A stem, three stages of `(depth - 2) / 6` blocks, global average pooling, one linear layer.

    Taps of interest: `features.layer1` to `features.layer3` (maps), `features` (pooled vector).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        depth: int,
        widths: Sequence[int] = NARROW,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape(f"resnet{depth}", input_shape, at_least=8)
        if depth < 8 or (depth - 2) % 6:
            raise UserError(f"resnet{depth}: the depth is 6 n + 2: 8, 14, 20, 26, 32, …")
        if len(widths) != 4:
            raise UserError(
                f"resnet{depth}: widths are those of stem and three stages, four in all"
            )
        blocks = (depth - 2) // 6
        stem, *stages = widths
        self.features = nn.Sequential()
        self.features.add_module(
            "stem",
            nn.Sequential(
                nn.Conv2d(channels, stem, 3, padding=1, bias=norm == "none"),
                norm_layer(norm, stem),
                nn.ReLU(),
            ),
        )
        before = stem
        for number, width in enumerate(stages, start=1):
            stage = nn.Sequential()
            for position in range(blocks):
                stride = 2 if number > 1 and position == 0 else 1
                stage.append(BasicBlock(before, width, stride, norm))
                before = width
            self.features.add_module(f"layer{number}", stage)
        self.features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.features.add_module("flatten", nn.Flatten())
        self.classifier = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, samples: Tensor) -> Tensor:
        """float [n, C, H, W] -> logits [n, classes]."""
        logits: Tensor = self.classifier(self.features(samples))
        return logits
