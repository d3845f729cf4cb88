"""Conv-Large (Laine & Aila 2017; Miyato et al. 2018) and the student that RONA compresses it to."""

from torch import Tensor, nn

from ktan.networks.norms import Norm, norm_layer
from ktan.networks.small import image_shape

TEACHER = (128, 256, 512, 256, 128)
"""Widths of the two 3x3 blocks and of the last block's 3x3, 1x1 and 1x1 convolutions."""
STUDENT = (32, 64, 64, 32, 32)
"""RONA's student (Wang et al. 2019): the same nine layers, 20 times fewer parameters."""


class ConvLarge(nn.Module):
    """Nine convolutions with leaky ReLU 0.1, max-pooled twice, averaged, then one linear layer.

    RONA's hint is the teacher's `features.pool1`, guiding the student's `features.block2`, both
    at a quarter of the pixels.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        widths: tuple[int, int, int, int, int] = TEACHER,
        norm: Norm = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape("conv-large", input_shape, at_least=4)
        first, second, *last = widths
        self.features = nn.Sequential()
        self.features.add_module("block1", _block(channels, [first] * 3, [3, 3, 3], norm))
        self.features.add_module("pool1", nn.MaxPool2d(2))
        self.features.add_module("dropout1", nn.Dropout2d(dropout))
        self.features.add_module("block2", _block(first, [second] * 3, [3, 3, 3], norm))
        self.features.add_module("pool2", nn.MaxPool2d(2))
        self.features.add_module("dropout2", nn.Dropout2d(dropout))
        self.features.add_module("block3", _block(second, last, [3, 1, 1], norm))
        self.features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.features.add_module("flatten", nn.Flatten())
        self.classifier = nn.Linear(last[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1, nonlinearity="leaky_relu")

    def forward(self, samples: Tensor) -> Tensor:
        """float [n, C, H, W] -> logits [n, classes]."""
        logits: Tensor = self.classifier(self.features(samples))
        return logits


def _block(before: int, widths: list[int], kernels: list[int], norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for after, kernel in zip(widths, kernels, strict=True):
        layers += [
            nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=norm == "none"),
            norm_layer(norm, after),
            nn.LeakyReLU(0.1),
        ]
        before = after
    return nn.Sequential(*layers)
