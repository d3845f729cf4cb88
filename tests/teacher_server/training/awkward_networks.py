"""Networks that a user might bring, and that break a rule without looking so."""

import torch
from torch import nn


def _with(layer):
    return nn.Sequential(nn.Linear(12, 8), layer, nn.ReLU(), nn.Linear(8, 3))


class Centred(nn.Module):
    """Subtracts the batch's mean: no parameter, no buffer, and every record feels every other."""

    def forward(self, values):
        return values - values.mean(0)


class RunningMean(nn.Module):
    """Keeps a mean of what it has seen in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, values):
        if self.training:
            self.seen.mul_(0.9).add_(0.1 * values.detach().mean(0))
        return values


def plain_batch_norm(input_shape, classes):
    return _with(nn.BatchNorm1d(8, affine=False))


def centred(input_shape, classes):
    return _with(Centred())


def running_mean(input_shape, classes):
    return _with(RunningMean())


def dropout(input_shape, classes):
    return _with(nn.Dropout(0.5))
