"""MobileNetV2 (Sandler et al. 2018) for 32x32 images, as the distillation literature has it.

That form is of Jin et al. 2019 (Route Constrained Optimization) and stands in RepDistiller and
mdistiller: strides of 16 instead of 32 in all, an expansion in the first block, too, widths cut to
whole numbers and not to multiples of 8, and ReLU instead of ReLU6.
"""

from torch import Tensor, nn

from ktan.errors import UserError
from ktan.networks.norms import Norm, norm_layer
from ktan.networks.small import image_shape

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
           (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
"""Expansion t, channels, blocks and stride of each: Table 2 of the paper, its second stride 1."""
_STEM, _LAST = 32, 1280
_NARROWEST, _WIDEST = 1 / 16, 16.0
"""Below, the first stage has no channel left."""


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation; a shortcut where it fits."""

    def __init__(self, before: int, after: int, stride: int, expansion: int, norm: Norm) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = convolution(before, inner, norm)
        self.depthwise = convolution(inner, inner, norm, side=3, stride=stride, groups=inner)
        self.project = convolution(inner, after, norm, activation=False)
        self.shortcut = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] -> [n, after, h / stride, w / stride]."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals, a 1x1 convolution, the mean, one linear layer.

    Taps of interest: `features.layer1` to `features.layer7` (maps without an activation),
    `features` (pooled vector). RepDistiller's four maps are those of layers 2, 3, 5 and 7.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: float = 1.0,
        norm: Norm = "batch",
    ) -> None:
        """`width` multiplies all channels, but the last convolution's only above 1."""
        super().__init__()
        channels, _, _ = image_shape("mobilenetv2", input_shape, at_least=16)
        if not (isinstance(width, int | float) and _NARROWEST <= width <= _WIDEST):
            raise UserError(
                f"mobilenetv2: width is {width}; give {_NARROWEST:g} to {_WIDEST:g}, such as 0.5"
            )
        before = int(_STEM * width)
        self.features = nn.Sequential()
        self.features.add_module("stem", convolution(channels, before, norm, side=3, stride=2))
        for number, (expansion, planes, blocks, stride) in enumerate(_STAGES, start=1):
            stage = nn.Sequential()
            for position in range(blocks):
                step = stride if position == 0 else 1
                stage.append(InvertedResidual(before, int(planes * width), step, expansion, norm))
                before = int(planes * width)
            self.features.add_module(f"layer{number}", stage)
        last = int(_LAST * max(1.0, width))
        self.features.add_module("last", convolution(before, last, norm))
        self.features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.features.add_module("flatten", nn.Flatten())
        self.classifier = nn.Linear(last, classes)
        initialise(self)

    def forward(self, samples: Tensor) -> Tensor:
        """float [n, C, H, W] -> logits [n, classes]."""
        logits: Tensor = self.classifier(self.features(samples))
        return logits


def convolution(
    before: int,
    after: int,
    norm: Norm,
    *,
    side: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    """A convolution, its norm, and ReLU where asked for; padded to keep the map's size."""
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, side, stride, side // 2, groups=groups, bias=norm == "none"),
        norm_layer(norm, after),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if activation else nn.Sequential(*layers)


def initialise(network: nn.Module) -> None:
    """He's initialisation (He et al. 2015), by what goes in: torch's `fan_out` takes a depthwise
    convolution for a full one, whose maps would then be √channels times too small."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
