"""Trains k teachers on k disjoint shards, many at once, without coupling them.

Teachers are trained in *stacks* of a few dozen, each stack to its end, as many stacks at once as
there are cores. Within a stack parameters are tensors [k', ...]: `vmap(grad)` gives each teacher
the gradient of its own loss, and the optimiser is elementwise. Nothing is summed, scaled, clipped
or decided over teachers, so each of them is a function of its shard, public data and the seed
(DESIGN.md, locality). A diverged teacher stays diverged and answers zeros; an empty shard's
teacher has no weights (NaN) and answers zeros, too.

Measured on 2 cores of an AVX-512 machine, 200 teachers of `cnn-small`, batch 32, CPU seconds a
step: vmap in stacks of 25 in bf16 0.30, in float32 0.41; one after another by autograd 0.36.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.data import Augment, Normalisation
from ktan.data.split import Indices
from ktan.networks import NetworkSpec
from ktan.optimisers import OptimiserName, learning_rate, make_optimiser
from ktan.precision import Precision, autocast
from ktan.teachers.stack import Stack, State, new_states, state_slice
from teacher_server.training.shard_batches import ShardBatches
from teacher_server.training.stack_state import StackState


@dataclass(frozen=True)
class EnsembleRecipe:
    """How teachers are trained; public settings only."""

    spec: NetworkSpec
    normalise: Normalisation
    steps: int
    """Of every teacher, the same for all; from the public number of units, k and batch."""
    batch: int
    learning_rate: float
    optimiser: OptimiserName
    weight_decay: float
    augment: Augment
    precision: Precision
    seed: int
    stack: int
    """Teachers trained as one stacked computation."""

    def fingerprint(self) -> str:
        """Differs for recipes that would not continue each other's states."""
        return repr(self)


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


def train_ensemble(
    samples: Tensor,
    labels: Tensor,
    shards: Sequence[Indices],
    recipe: EnsembleRecipe,
    *,
    device: torch.device,
    start: State | None = None,
    folder: Path | None = None,
    stopping: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda _teachers: None,
) -> State:
    """k trained networks as one state, name → [k, ...] on the CPU.

    `samples` [N, ...] and `labels` int64 [N] (-1: no label, not learnt from); `shards`: positions
    of each teacher's records. `start`: a public network without the leading k, that all teachers
    begin as; fresh ones otherwise. `folder` keeps the states of stacks, and an earlier, interrupted
    call with the same recipe goes on from there, to the same weights. `stopping` is asked after
    each step; when it says yes, states are saved and KeyboardInterrupt is raised.
    """
    # Here and not in the threads, which share one random state.
    if start is None:
        first = new_states(recipe.spec, [seed_of(recipe.seed, i) for i in range(len(shards))])
    else:
        first = {name: value.expand(len(shards), *value.shape) for name, value in start.items()}
    return train_stacks(
        Stack(recipe.spec, (), device), first, samples, labels, shards, recipe, device=device,
        folder=folder, stopping=stopping, on_step=on_step,
    )  # fmt: skip


def train_stacks(
    network: Learner,
    first: State,
    samples: Tensor,
    labels: Tensor,
    shards: Sequence[Indices],
    recipe: EnsembleRecipe,
    *,
    device: torch.device,
    folder: Path | None = None,
    name: str = "stack",
    stopping: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda _teachers: None,
) -> State:
    """k trained learners from their `first` states, name → [k, ...]; see `train_ensemble`.

    `name`: of the files in `folder`, NAME-0000.safetensors and so on.
    """
    # Networks with running statistics cannot share a stack; they are trained one after another.
    height = 1 if network.has_buffers else recipe.stack
    groups = [range(i, min(i + height, len(shards))) for i in range(0, len(shards), height)]
    samples, labels = samples.to(device), labels.to(device)
    gone = threading.Event()
    # Dropout draws from torch's one random state: in threads, who draws what would depend on how
    # long other teachers' steps take.
    random = network.is_random()

    def train_group(number: int) -> State:
        group = groups[number]
        own = state_slice(first, slice(group.start, group.stop))
        run = _StackRun(network, recipe, group, [shards[i] for i in group], own, device)
        path = None if folder is None else folder / f"{name}-{number:04d}.safetensors"
        if path is not None and path.exists():
            # What stands in `first` beside the parameters decides, not what stood there once.
            run.state.load(path, recipe.fingerprint(), frozen=not network.has_buffers)
        while run.state.step < recipe.steps:
            with torch.random.fork_rng(enabled=random):
                if random:
                    torch.manual_seed(seed_of(recipe.seed, group.start, run.state.step, 1))
                run.step(samples, labels)
            on_step(len(group))
            if stopping() or gone.is_set():
                if path is not None:
                    run.state.save(path, recipe.fingerprint())
                raise KeyboardInterrupt
        if path is not None:
            run.state.save(path, recipe.fingerprint())
        return run.finished()

    parallel = device.type == "cpu" and not random
    workers = min(len(groups), os.cpu_count() or 1) if parallel else 1
    if workers == 1:
        parts = [train_group(number) for number in range(len(groups))]
    else:
        parts = _in_threads(train_group, len(groups), workers, gone)
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _in_threads(
    work: Callable[[int], State], count: int, workers: int, gone: threading.Event
) -> list[State]:
    """Runs `work(0..count-1)` in threads that each compute on one core."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1)) as pool:
            futures = [pool.submit(work, number) for number in range(count)]
            try:
                return [future.result() for future in futures]
            except BaseException:
                gone.set()
                for future in futures:
                    future.cancel()
                raise
    finally:
        torch.set_num_threads(before)


class _StackRun:
    """One stack of teachers on its way."""

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


def seed_of(*numbers: int) -> int:
    """A seed that is the numbers' own: no two sequences of them share one but by chance."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
