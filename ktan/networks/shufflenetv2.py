"""ShuffleNetV2 (Ma et al. 2018) for 32x32 images, as the distillation literature has it.

That form stands in RepDistiller and mdistiller: the stem is one 1x1 convolution that keeps all
pixels, without the pooling behind it. Widths are those of the paper's Table 5.
"""

import torch
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.networks.mobilenetv2 import convolution, initialise
from ktan.networks.norms import Norm
from ktan.networks.small import image_shape

WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
"""Width → channels of the three stages and of the last convolution."""
_STEM = 24
_UNITS = (4, 8, 4)
"""Of the three stages; the first of each halves the side."""


class ShuffleUnit(nn.Module):
    """Half of the channels go through three convolutions, then both halves are shuffled."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> the same."""
        kept, taken = x.chunk(2, dim=1)
        return _shuffled(kept, self.branch(taken))


class DownUnit(nn.Module):
    """Both branches see all channels and halve the side."""

    def __init__(self, before: int, after: int, norm: Norm) -> None:
        super().__init__()
        self.short = nn.Sequential(
            *convolution(before, before, norm, side=3, stride=2, groups=before, activation=False),
            *convolution(before, after // 2, norm),
        )
        self.branch = _branch(before, after // 2, 2, norm)

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] -> [n, after, h / 2, w / 2]."""
        return _shuffled(self.short(x), self.branch(x))


class ShuffleNetV2(nn.Module):
    """A stem, three stages of shuffled units, a 1x1 convolution, the mean, one linear layer.

    Taps of interest: `features.layer1` to `features.layer3` (maps), `features` (pooled vector).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: float = 1.0,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape("shufflenetv2", input_shape, at_least=8)
        if width not in WIDTHS:
            known = ", ".join(f"{one:g}" for one in WIDTHS)
            raise UserError(f"shufflenetv2: width {width} is not of the paper's; choose {known}")
        *stages, last = WIDTHS[width]
        self.features = nn.Sequential()
        self.features.add_module("stem", convolution(channels, _STEM, norm))
        before = _STEM
        for number, (planes, units) in enumerate(zip(stages, _UNITS, strict=True), start=1):
            rest = [ShuffleUnit(planes, norm) for _ in range(units - 1)]
            stage = nn.Sequential(DownUnit(before, planes, norm), *rest)
            self.features.add_module(f"layer{number}", stage)
            before = planes
        self.features.add_module("last", convolution(before, last, norm))
        self.features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.features.add_module("flatten", nn.Flatten())
        self.classifier = nn.Linear(last, classes)
        initialise(self)

    def forward(self, samples: Tensor) -> Tensor:
        """float [n, C, H, W] -> logits [n, classes]."""
        logits: Tensor = self.classifier(self.features(samples))
        return logits


def _branch(before: int, inner: int, stride: int, norm: Norm) -> nn.Sequential:
    """1x1, 3x3 depthwise without activation, 1x1."""
    return nn.Sequential(
        *convolution(before, inner, norm),
        *convolution(inner, inner, norm, side=3, stride=stride, groups=inner, activation=False),
        *convolution(inner, inner, norm),
    )


def _shuffled(left: Tensor, right: Tensor) -> Tensor:
    """[n, c, h, w] each -> [n, 2 c, h, w], their channels in turns."""
    return torch.stack((left, right), dim=2).flatten(1, 2)
