"""One stack of teachers on its way: k' learners, each trained on its own shard, none on another's.

`vmap(grad)` gives each learner the gradient of its own loss, and the optimiser is elementwise.
Nothing is summed, scaled, clipped or decided over learners, so each of them is a function of its
shard, public data and the seed (DESIGN.md, locality).
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.data.split import Indices
from ktan.optimisers import learning_rate, make_optimiser
from ktan.precision import autocast
from ktan.teachers.stack import State, state_slice
from teacher_server.training.recipe import EnsembleRecipe, seed_of
from teacher_server.training.shard_batches import ShardBatches
from teacher_server.training.stack_state import StackState


class Learner(Protocol):
    """What k learners have in common: all but their states. `Stack` is one."""

    @property
    def has_buffers(self) -> bool:
        """Whether a pass in training mode changes a state's buffers."""
        ...

    def parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names of what is trained; the rest of a state are buffers."""
        ...

    def logits(self, state: State, samples: Tensor, *, training: bool = False) -> Tensor:
        """Of one learner; to be mapped over k."""
        ...

    def is_random(self) -> bool:
        """Whether a pass in training mode draws random numbers."""
        ...


class StackRun:
    """Parameters are tensors [k', ...]; of one learner alone, plain autograd finds the gradient."""

    def __init__(
        self,
        network: Learner,
        recipe: EnsembleRecipe,
        group: range,
        shards: Sequence[Indices],
        first: State,
        device: torch.device,
    ) -> None:
        self._network = network
        self._recipe = recipe
        self._group = group
        self._empty = [len(shard) == 0 for shard in shards]
        self._device = device
        self._batches = [
            ShardBatches(shard, recipe.batch, recipe.seed, teacher)
            for shard, teacher in zip(shards, group, strict=True)
        ]
        # In the network's order: an optimiser knows its parameters by number.
        parameters = {
            name: torch.nn.Parameter(_own_copy(first[name], device))
            for name, _ in network.parameters()
        }
        buffers = {n: _own_copy(v, device) for n, v in first.items() if n not in parameters}
        optimiser = make_optimiser(parameters.values(), recipe.optimiser, recipe.weight_decay)
        self.state = StackState(parameters, buffers, optimiser)

    def step(self, samples: Tensor, labels: Tensor) -> None:
        """One step of every teacher in the stack, each on a batch of its own shard."""
        recipe, state = self._recipe, self.state
        drawn = np.stack([batches(state.step) for batches in self._batches])
        places = torch.from_numpy(drawn.reshape(-1)).to(self._device)
        generator = torch.Generator().manual_seed(
            seed_of(recipe.seed, self._group.start, 1 + state.step)
        )
        inputs = recipe.normalise(recipe.augment(samples[places], generator))
        inputs = inputs.reshape(*drawn.shape, *samples.shape[1:])
        targets = labels[places].reshape(drawn.shape)
        with autocast(self._device, recipe.precision):
            gradients = self._gradients(inputs, targets)
        for name, parameter in state.parameters.items():
            parameter.grad = gradients[name].to(parameter.dtype)
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate(recipe.learning_rate, state.step, recipe.steps)
        state.optimiser.step()
        state.step += 1

    def finished(self) -> State:
        """The stack's networks on the CPU."""
        tensors = {**self.state.parameters, **self.state.buffers}
        result = {name: value.detach().cpu().clone() for name, value in tensors.items()}
        for place, empty in enumerate(self._empty):
            if empty:
                for value in state_slice(result, slice(place, place + 1)).values():
                    if value.is_floating_point():
                        value.fill_(float("nan"))
        return result

    def _gradients(self, inputs: Tensor, targets: Tensor) -> State:
        state = self.state
        if len(self._group) > 1:
            detached = {name: value.detach() for name, value in state.parameters.items()}
            own = torch.func.grad(self._loss)
            mapped = torch.func.vmap(own, randomness="different")
            return dict(mapped(detached, state.buffers, inputs, targets))
        parameters = {name: value[0] for name, value in state.parameters.items()}
        # Views: running statistics are updated in place.
        buffers = {name: value[0] for name, value in state.buffers.items()}
        loss = self._loss(parameters, buffers, inputs[0], targets[0])
        found = torch.autograd.grad(loss, list(state.parameters.values()))
        return dict(zip(state.parameters, found, strict=True))

    def _loss(self, parameters: State, buffers: State, inputs: Tensor, targets: Tensor) -> Tensor:
        """One teacher's cross-entropy, mean over the records that have a label."""
        logits = self._network.logits({**parameters, **buffers}, inputs, training=True)
        total = F.cross_entropy(logits.float(), targets, ignore_index=-1, reduction="sum")
        return total / (targets >= 0).sum().clamp_min(1)


def _own_copy(value: Tensor, device: torch.device) -> Tensor:
    """Contiguous: a copy of an expanded tensor would keep k as its fastest dimension, and fused
    optimisers mix up states of another layout, such as loaded ones."""
    return value.to(device).clone(memory_format=torch.contiguous_format)
