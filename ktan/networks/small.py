"""Small networks without batch norm: a hundred of them train at once as one stacked computation."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ktan.errors import UserError


class SmallCnn(nn.Module):
    """Two strided 5x5 convolutions and a hidden layer, whose output is the feature.

    With 28x28 grey images: 1 x 28 x 28 -> 16 x 12 x 12 -> 32 x 4 x 4 -> 64 -> classes,
    46,730 parameters and 0.3 million multiply-adds.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        channels: tuple[int, int] = (16, 32),
        width: int = 64,
    ) -> None:
        super().__init__()
        planes, height, breadth = image_shape("cnn-small", input_shape, at_least=13)
        first, second = channels
        # 5x5 with stride 2 and no padding, twice.
        sides = [((side - 5) // 2 + 1 - 5) // 2 + 1 for side in (height, breadth)]
        self.features = nn.Sequential(
            nn.Conv2d(planes, first, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 5, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * math.prod(sides), width),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, samples: Tensor) -> Tensor:
        """float [n, C, H, W] -> logits [n, classes]."""
        logits: Tensor = self.classifier(self.features(samples))
        return logits


class SmallMlp(nn.Module):
    """Fully connected layers for tables or flattened images; the last hidden one is the feature."""

    def __init__(
        self, input_shape: tuple[int, ...], classes: int, *, hidden: Sequence[int] = (128, 64)
    ) -> None:
        super().__init__()
        if not hidden:
            raise UserError("mlp-small needs at least one hidden layer")
        widths = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, samples: Tensor) -> Tensor:
        """float [n, d] or [n, C, H, W] -> logits [n, classes]."""
        logits: Tensor = self.classifier(self.features(samples))
        return logits


def image_shape(network: str, input_shape: tuple[int, ...], at_least: int) -> tuple[int, int, int]:
    """(C, H, W), or UserError when samples are no images of at least `at_least` pixels a side."""
    if len(input_shape) != 3 or min(input_shape[1:]) < at_least:
        raise UserError(
            f"{network} takes images [C, H, W] of at least {at_least} x {at_least}, not "
            f"{list(input_shape)}; for tables use mlp-small"
        )
    return input_shape[0], input_shape[1], input_shape[2]
