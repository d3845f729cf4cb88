"""A network as a device meets it: raw samples in, logits out, normalisation inside."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ktan.data import Normalisation


class Deployed(nn.Module):
    """uint8 images [n, C, H, W] of 0 to 255, or float32 rows [n, d] as they are, → float32 logits
    [n, classes].

    Several networks of one kind answer by the mean of their logits. Arithmetic is that of
    `Normalisation` and of the networks, bit for bit.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        normalisation: Normalisation,
        input_shape: Sequence[int],
    ) -> None:
        """The networks are used as they are, and put into eval mode."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        mean = torch.tensor(normalisation.mean, dtype=torch.float32)
        scale = (1 / torch.tensor(normalisation.std, dtype=torch.float64)).float()
        beside = [1] * (len(input_shape) - 1)
        self.mean = nn.Buffer(mean.reshape(1, -1, *beside))
        self.scale = nn.Buffer(scale.reshape(1, -1, *beside))
        self.eval()

    def forward(self, samples: Tensor) -> Tensor:
        """Raw samples → logits."""
        values = (samples.to(torch.float32) - self.mean) * self.scale
        logits: list[Tensor] = [network(values).float() for network in self.networks]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)
