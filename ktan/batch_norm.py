"""Batch norm over the samples of all processes, so that a shared step normalises as one does.

Ioffe and Szegedy 2015; torch's own SyncBatchNorm is for GPUs alone, and stands in there.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.parallel import Group


def normalise_together(module: nn.Module, group: Group, device: torch.device) -> None:
    """Makes every batch norm within `module` one over all processes, in place.

    Names, weights and statistics stay; processes give as many samples each.
    """
    if group.count == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, GroupBatchNorm(child, group))


class GroupBatchNorm(nn.Module):
    """What another batch norm is, with a group's statistics in training."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, group: Group) -> None:
        """Takes `norm`'s own parameters and buffers."""
        super().__init__()
        if norm.momentum is None:
            raise ValueError("a cumulative mean over batches is not kept by several processes")
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.register_buffer("num_batches_tracked", norm.num_batches_tracked)
        self._group = group
        self.train(norm.training)

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def forward(self, samples: Tensor) -> Tensor:
        """[n, c, ...] → the same shape and type."""
        if not self.training and self.running_mean is not None:
            return F.batch_norm(
                samples, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        axes = [axis for axis in range(samples.ndim) if axis != 1]
        with torch.no_grad():
            variance, mean = torch.var_mean(samples.float(), dim=axes, correction=0)
            means, variances = torch.stack(
                self._group.gathered(torch.stack([mean, variance])), dim=1
            )
            mean = means.mean(dim=0)
            # Of equal parts: within them, and between them.
            variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
            if self.training:
                self._track(mean, variance, samples.numel() // len(mean) * self._group.count)
        found: Tensor = _Normalised.apply(
            samples, self.weight, self.bias, mean, torch.rsqrt(variance + self.eps), self._group
        )
        return found

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


class _Normalised(torch.autograd.Function):
    """(x − mean)/sd · weight + bias, whose gradient knows that mean and sd are everybody's."""

    @staticmethod
    def forward(
        ctx: Any, samples: Tensor, weight: Tensor | None, bias: Tensor | None,
        mean: Tensor, scale: Tensor, group: Group,
    ) -> Tensor:  # fmt: skip
        shape = [-1 if axis == 1 else 1 for axis in range(samples.ndim)]
        normal = (samples.float() - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, weight, scale)
        ctx.group, ctx.shape = group, shape
        found = normal if weight is None else normal * weight.view(shape)
        if bias is not None:
            found = found + bias.view(shape)
        return found.to(samples.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normal, weight, scale = ctx.saved_tensors
        kind, gradient = gradient.dtype, gradient.float()
        axes = [axis for axis in range(normal.ndim) if axis != 1]
        to_bias, to_weight = gradient.sum(axes), (gradient * normal).sum(axes)
        # Of weight and bias the trainer makes the mean, as of all parameters.
        means = torch.cat([to_bias, to_weight]) * (normal.shape[1] / normal.numel())
        ctx.group.average([means])
        one, other = (part.view(ctx.shape) for part in means.chunk(2))
        slope = scale if weight is None else scale * weight
        to_samples = (gradient - one - normal * other) * slope.view(ctx.shape)
        if weight is None:
            return to_samples.to(kind), None, None, None, None, None
        return to_samples.to(kind), to_weight, to_bias, None, None, None
