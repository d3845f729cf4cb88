"""The sum of clipped per-record gradients: what DP-SGD adds its noise to.

The gradient of record i is the mean of those of its K views (De et al. 2022, "augmentation
multiplicity"), g_i = 1/K Σ_k ∇ℓ(view k of i), and is clipped as one: Σ_i g_i · min(1, C / |g_i|),
with |g_i| over all parameters. One record moves the sum by at most C, whatever K is, so that the
accounting does not know of K.

Per-record gradients come from Opacus's hooks. `flat` makes one of each record for each parameter.
`ghost` (Li et al. 2022) does not for the weights of a linear layer that sees one vector a view:
there the gradient is Σ_k b_k a_k^T, whose norm follows from inner products of the a and of the b,
and the clipped sum is one product of the two matrices, which are still there (Bu et al. 2023,
"book-keeping"; Opacus's own ghost clipping takes a second backward pass for it). Other layers are
as in `flat`: a norm from the Gram matrices of many positions can lose all its digits where they
cancel, and the sum would then hold that record at more than C.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from ktan.errors import UserError
from teacher_server.training.clipping_kinds import Clipping

_ROUNDING = 1e-5
"""More than float32 loses in `_norms`, relative to the norm (of a sum: to those of its terms)."""
_BLOCK = 1024
"""Values whose squares are added one after another, as torch does on a CPU."""


class Clipper:
    """A replica of a network, on the same weights, that sums its records' clipped gradients."""

    def __init__(
        self, network: nn.Module, max_grad_norm: float, clipping: Clipping, example: Tensor
    ) -> None:
        """`example`: normalised samples [n, ...], n >= 1, by which layers show what they see.

        Raises UserError for a layer that sees another number of rows.
        """
        replica = copy.deepcopy(network)
        for own, shared in zip(replica.parameters(), network.parameters(), strict=True):
            own.data = shared.data
        self._bound = max_grad_norm
        layers = vector_layers(replica, example) if clipping == "ghost" else set()
        self._model = _Hooked(replica, layers)
        self._names = {parameter: name for name, parameter in replica.named_parameters()}
        self._parameters = list(self._names)
        self._sums = [torch.zeros_like(parameter) for parameter in self._parameters]

    def add(self, inputs: Tensor, labels: Tensor, views: int = 1) -> None:
        """Adds the clipped gradients of n >= 1 records.

        `inputs`: normalised [n * views, ...], a record's views one after another; `labels`: int64
        [n], -1 for none. A record whose gradient or norm is not finite counts as zero: it would
        turn the whole sum into NaN, and so move it without bound. Raises UserError, with nothing
        added, for a layer that saw another number of rows: none of them is a record.
        """
        targets = labels.repeat_interleave(views)
        loss = F.cross_entropy(self._model(inputs), targets, ignore_index=-1, reduction="sum")
        loss.backward()
        pairs = {
            layer.weight: (_by_record(b, views) / views, _by_record(a, views))
            for layer, (b, a) in self._model.taken().items()
        }
        whole = {
            parameter: _mean_of_views(gradients, views)
            for parameter in self._parameters
            if parameter not in pairs
            and (gradients := getattr(parameter, "grad_sample", None)) is not None
        }
        norms: dict[Any, Tensor] = {
            parameter: _norms(values.flatten(1)) for parameter, values in whole.items()
        }
        norms |= {weight: _product_norm(*pair) for weight, pair in pairs.items()}
        for parameter, found in norms.items():
            if len(found) != len(labels):
                raise _not_records(self._names[parameter].rpartition(".")[0])
        norm = torch.stack(list(norms.values())).norm(dim=0) * (1 + _ROUNDING)
        scale = self._bound / norm.clamp_min(self._bound)
        broken = ~norm.isfinite()
        if bool(broken.any()):
            # Zero times what is not finite is not zero.
            scale[broken] = 0.0
            whole = {parameter: _without(broken, values) for parameter, values in whole.items()}
            pairs = {
                weight: (_without(broken, b), _without(broken, a))
                for weight, (b, a) in pairs.items()
            }
        for parameter, summed in zip(self._parameters, self._sums, strict=True):
            if parameter in pairs:
                b, a = pairs[parameter]
                b = b * scale[:, None, None]
                summed.addmm_(b.flatten(0, 1).T, a.flatten(0, 1))
            elif parameter in whole:
                summed.view(-1).addmv_(whole[parameter].flatten(1).T, scale)
            parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]

    def take(self) -> list[Tensor]:
        """What was added since the last time, a tensor for each parameter."""
        summed = self._sums
        self._sums = [torch.zeros_like(parameter) for parameter in self._parameters]
        return summed


def vector_layers(network: nn.Module, example: Tensor) -> set[nn.Module]:
    """The linear layers that run once, see one vector a sample, and share no weight.

    Raises UserError for a linear layer that does not see `example`'s n [n, ...] rows.
    """
    seen: dict[nn.Module, int] = {}
    names = {module: name for name, module in network.named_modules()}

    def see(module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        if len(inputs[0]) != len(example):
            raise _not_records(names[module])
        # A sequence counts as many runs.
        seen[module] = seen.get(module, 0) + (1 if inputs[0].ndim == 2 else 2)

    linear = [module for module in network.modules() if type(module) is nn.Linear]
    handles = [module.register_forward_hook(see) for module in linear]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    owners: dict[Tensor, int] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            owners[parameter] = owners.get(parameter, 0) + 1
    return {layer for layer in linear if seen.get(layer) == 1 and owners[layer.weight] == 1}


class _Hooked(GradSampleModule):
    """Opacus's hooks, and for some layers what their weights' gradients are products of."""

    def __init__(self, network: nn.Module, layers: set[nn.Module]) -> None:
        super().__init__(network, loss_reduction="sum")
        # What lies within a module that Opacus takes as a whole has no hook of its own.
        self._layers = layers & set(self.iterate_submodules(network))
        self._pairs: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def taken(self) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """Layer → gradients of its outputs [n, out] and its inputs [n, in], of the last pass."""
        pairs, self._pairs = self._pairs, {}
        return pairs

    def capture_backprops_hook(
        self,
        module: Any,
        inputs: Any,
        outputs: tuple[Tensor, ...],
        loss_reduction: str,
        batch_first: bool,
    ) -> None:
        """Opacus calls it when the gradients of a layer's outputs are known."""
        if module not in self._layers:
            super().capture_backprops_hook(module, inputs, outputs, loss_reduction, batch_first)
            return
        (activations,) = module.activations.pop()
        backprops = outputs[0].detach()
        self._pairs[module] = (backprops, activations)
        for parameter in module.parameters(recurse=False):
            parameter._forward_counter -= 1
        if module.bias is not None:
            module.bias.grad_sample = backprops


def _conv2d_gradients(
    layer: nn.Conv2d, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """As Opacus's, without the copies that it makes for groups: half the time on a CPU."""
    if layer.groups > 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        found: dict[Tensor, Tensor] = _OPACUS_CONV2D(layer, activations, backprops)
        return found
    patches = F.unfold(
        activations[0], layer.kernel_size, layer.dilation, layer.padding, layer.stride
    )
    flat = backprops.flatten(2)
    gradients = {layer.weight: torch.bmm(flat, patches.mT).view(-1, *layer.weight.shape)}
    if layer.bias is not None:
        gradients[layer.bias] = flat.sum(dim=2)
    return gradients


_OPACUS_CONV2D = GradSampleModule.GRAD_SAMPLERS[nn.Conv2d]
_Hooked.GRAD_SAMPLERS = {**GradSampleModule.GRAD_SAMPLERS, nn.Conv2d: _conv2d_gradients}


def _not_records(layer: str) -> UserError:
    return UserError(
        f"layer {layer or 'of the whole network'} cannot be trained by dp-sgd: the rows that it "
        "sees are not the batch's records, and each would be clipped by itself; keep records as "
        "the first dimension of what it is given ([n, T, ...], not [n * T, ...])"
    )


def _by_record(values: Tensor, views: int) -> Tensor:
    """[n * views, ...] -> [n, views, ...]."""
    parts: Tensor = values.unflatten(0, (-1, views))
    return parts


def _mean_of_views(gradients: Tensor, views: int) -> Tensor:
    """[n * views, ...] -> [n, ...]."""
    return gradients if views == 1 else _by_record(gradients, views).mean(dim=1)


def _without(rows: Tensor, values: Tensor) -> Tensor:
    """`values` [n, ...] with zeros in some `rows`, bool [n]."""
    return values.masked_fill(rows.reshape(-1, *[1] * (values.ndim - 1)), 0.0)


def _norms(values: Tensor) -> Tensor:
    """[..., n] -> [...]: over blocks first; a long row at once loses more than `_ROUNDING`."""
    whole = values.shape[-1] // _BLOCK * _BLOCK
    if whole < values.shape[-1]:
        rest = values[..., whole:].norm(dim=-1)
        return rest if whole == 0 else torch.hypot(_norms(values[..., :whole]), rest)
    blocks = values.unflatten(-1, (-1, _BLOCK)).norm(dim=-1)
    return blocks[..., 0] if whole == _BLOCK else _norms(blocks)


def _product_norm(b: Tensor, a: Tensor) -> Tensor:
    """|Σ_k b_k a_k^T| for b [n, k, out] and a [n, k, in]: [n], never less than it is."""
    terms = _norms(b) * _norms(a)
    if b.shape[1] == 1:
        return terms[:, 0]
    b, a = b.double(), a.double()
    squared = ((b @ b.mT) * (a @ a.mT)).sum(dim=(1, 2)).clamp_min(0.0)
    return squared.sqrt().float() + _ROUNDING * terms.sum(dim=1)
