"""Trains one teacher by DP-SGD (Abadi et al. 2016) with Opacus.

Each record's gradient is bounded by itself (clipping.py), records are sampled independently
(Poisson), noise is added to the sum, and the sum is divided by the *expected* batch size: the
mechanism that `privacy.composition` accounts. Sampling and noise come from secret entropy
(secret_noise.py).
Batch sizes, gradient norms and the training loss are private and neither shown nor stored.
"""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from ktan.data import Augment, Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.optimisers import OptimiserName, learning_rate, make_optimiser
from privacy.composition import DpSgdRun
from teacher_server.training.clipping import Clipper
from teacher_server.training.clipping_kinds import Clipping
from teacher_server.training.secret_noise import SecretNoise
from teacher_server.training.stack_state import StackState

_STATE = "dp-sgd.safetensors"
_CHECKPOINTS = 10
_OVERRIDE = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"


@dataclass(frozen=True)
class DpSgdRecipe:
    """How the teacher is trained; public settings only."""

    spec: NetworkSpec
    normalise: Normalisation
    run: DpSgdRun
    """Sampling rate, noise and steps, as the ledger has reserved them."""
    max_grad_norm: float
    """L2 bound of one record's gradient over all parameters."""
    learning_rate: float
    optimiser: OptimiserName
    chunk: int
    """Records, or views, whose gradients are in memory at once; changes nothing but time."""
    clipping: Clipping = "ghost"
    """How gradients are clipped; changes nothing but time."""
    views: int = 1
    """Of a record, whose gradients are averaged before they are clipped; 1: the record itself."""
    augment: Augment = field(default_factory=Augment)
    """What views are made by, where there is more than one."""

    def fingerprint(self) -> str:
        """Differs for recipes that would not continue each other's states."""
        viewed = f" {self.views} views {self.augment}" if self.views > 1 else ""
        return (
            f"DpSgdRecipe(spec={self.spec!r}, normalise={self.normalise!r}, run={self.run!r}, "
            f"max_grad_norm={self.max_grad_norm!r}, learning_rate={self.learning_rate!r}, "
            f"optimiser={self.optimiser!r}, chunk=0){viewed}"
        )


def train_dp_sgd(
    samples: Tensor,
    labels: Tensor,
    recipe: DpSgdRecipe,
    *,
    device: torch.device,
    start: dict[str, Tensor] | None = None,
    folder: Path | None = None,
    charged: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda _teachers: None,
) -> dict[str, Tensor]:
    """A trained network as a state, name → [1, ...] on the CPU.

    `samples` [N, ...] and `labels` int64 [N] (-1: no label, no gradient) of all private records;
    `start`: a public network's state to begin from. `folder` keeps checkpoints; a later call goes
    on from the last one with fresh sampling and noise: steps after it were never released, so they
    count once. The last step is always kept: a run that was `charged` may have been released, and
    only its own last state may be used again, never a second draw of its noise. `stopping` is
    asked after each step; KeyboardInterrupt follows a checkpoint.

    Raises UserError for a network in which one record's gradient depends on another record, or
    that keeps statistics of its inputs, for a charged run whose last state is not there, and for an
    environment in which sums of gradients would be rounded to TF32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(recipe.spec)
    if start is not None:
        network.load_state_dict(start)
    _require_separable(network, recipe.spec)
    network.to(device).train()
    source = SecretNoise()
    inner = make_optimiser(network.parameters(), recipe.optimiser)
    state = StackState(dict(network.named_parameters()), dict(network.named_buffers()), inner)
    path = None if folder is None else folder / _STATE
    if path is not None and path.exists():
        state.load(path, recipe.fingerprint())
    if charged and state.step < recipe.run.steps:
        raise UserError(
            "this training was charged and its last state is not there: going on would release a "
            "second result under one charge; delete it, and train anew with another reserved run"
        )
    samples, labels = samples.to(device), labels.to(device)
    expected = recipe.run.sample_rate * len(samples)
    every = max(1, recipe.run.steps // _CHECKPOINTS)
    # Opacus's hooks need no gradient of the inputs; torch warns of that once for each module.
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    with (
        _full_float32(),
        _Clippers(network, recipe, samples, labels, source) as clippers,
    ):
        while state.step < recipe.run.steps:
            for group in inner.param_groups:
                group["lr"] = learning_rate(recipe.learning_rate, state.step, recipe.run.steps)
            drawn = source.sampled(len(samples), recipe.run.sample_rate)
            summed = clippers.sum(torch.from_numpy(drawn).to(device))
            deviation = recipe.run.noise_multiplier * recipe.max_grad_norm
            for parameter, gradient in zip(network.parameters(), summed, strict=True):
                noise = source.normal(tuple(parameter.shape)).to(device)
                parameter.grad = (gradient + deviation * noise) / expected
            inner.step()
            state.step += 1
            on_step(1)
            asked = stopping()
            last = state.step == recipe.run.steps
            if path is not None and (asked or last or state.step % every == 0):
                state.save(path, recipe.fingerprint())
            if asked and not last:
                raise KeyboardInterrupt
    values = {**state.parameters, **state.buffers}
    return {name: value.detach().cpu().clone()[None] for name, value in values.items()}


@contextmanager
def _full_float32() -> Iterator[None]:
    """No product is rounded to TF32 or bfloat16: a clipped gradient could then exceed its bound.

    Raises UserError where the environment has torch round all the same.
    """
    if os.environ.get(_OVERRIDE, "0") != "0":
        raise UserError(
            f"{_OVERRIDE} is set, and dp-sgd needs products of all of float32's digits; unset it"
        )
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


class _Clippers:
    """Sums clipped gradients of many records: one replica of the network for each core.

    A step's records are taken in chunks (Opacus's virtual steps): what is summed, and what it is
    divided by and noised with, is the step's, however many chunks it takes.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: DpSgdRecipe,
        samples: Tensor,
        labels: Tensor,
        source: SecretNoise,
    ) -> None:
        self._recipe = recipe
        self._samples, self._labels = samples, labels
        self._source = source
        # One core an operation and many operations at once, where operations are small.
        alone = samples.device.type == "cpu" and torch.get_num_threads() == 1
        count = (os.cpu_count() or 1) if alone else 1
        example = torch.zeros(2, *samples.shape[1:], device=samples.device)
        self._clippers = [
            Clipper(network, recipe.max_grad_norm, recipe.clipping, example) for _ in range(count)
        ]
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> "_Clippers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def sum(self, drawn: Tensor) -> list[Tensor]:
        """Σ over the drawn records (positions, int64 [n]) of their clipped gradients."""
        # Views are in memory at once, too.
        chunks = drawn.split(max(1, self._recipe.chunk // self._recipe.views)) if len(drawn) else ()
        if len(self._clippers) == 1:
            return self._share(self._clippers[0], chunks)
        work = [
            self._pool.submit(self._share, clipper, chunks[i :: len(self._clippers)])
            for i, clipper in enumerate(self._clippers)
        ]
        parts = [future.result() for future in work]
        return [torch.stack(gradients).sum(dim=0) for gradients in zip(*parts, strict=True)]

    def _share(self, clipper: Clipper, chunks: Sequence[Tensor]) -> list[Tensor]:
        recipe = self._recipe
        for chunk in chunks:
            inputs, labels = self._samples[chunk], self._labels[chunk]
            if recipe.views > 1:
                inputs = inputs.repeat_interleave(recipe.views, dim=0)
                # Secret, like who was drawn: with a known seed, and by places in the batch, others'
                # views would tell whether one record is in it.
                chance = self._source.uniform((recipe.augment.draws, len(inputs)))
                inputs = recipe.augment.views(inputs, chance.to(inputs.device))
            clipper.add(recipe.normalise(inputs), labels, recipe.views)
        return clipper.take()


def _require_separable(network: nn.Module, spec: NetworkSpec) -> None:
    """Raises UserError unless each record's logits are a function of that record alone.

    Opacus looks at trainable modules only; what a record may reach is therefore tried, too, on
    random (public) inputs: no buffer may change, no row may feel another, and nothing may be drawn:
    random numbers go by places in the batch, and one record's presence moves the others'.
    """
    errors: list[Any] = list(ModuleValidator.validate(network, strict=False))
    advice = "--network-set norm=group"
    inputs = torch.randn(3, *spec.input_shape, generator=torch.Generator().manual_seed(1))
    changed = inputs.clone()
    changed[1:] *= -100.0
    trial = copy.deepcopy(network).train()
    before = {name: value.clone() for name, value in trial.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        rows, drawn = [], False
        for batch in (inputs, changed):
            torch.manual_seed(1)
            state = torch.get_rng_state()
            rows.append(trial(batch)[0])
            # Also where it is drawn too seldom to show in three rows.
            drawn |= not torch.equal(torch.get_rng_state(), state)
    if any(not torch.equal(value, before[name]) for name, value in trial.named_buffers()):
        errors.append("it keeps statistics of its inputs, which would be released without noise")
    if not torch.allclose(rows[0], rows[1], rtol=1e-4, atol=1e-5):
        errors.append("one record's output depends on the others in its batch")
    if drawn and not errors:
        errors.append(
            "its training pass draws random numbers (dropout, stochastic depth), by which one "
            "record's presence would move the others' gradients"
        )
        advice = "--network-set dropout=0"
    if errors:
        raise UserError(
            f"network {spec.name} cannot be trained by dp-sgd: {errors[0]} "
            f"({advice} where the network has that option)"
        )
