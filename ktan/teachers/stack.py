"""k networks of one architecture, stacked: parameters and buffers are tensors [k, ...].

As one computation `torch.func.vmap` turns k small convolutions into one grouped one and k small
matrix products into one batched one: always on a GPU, on a CPU where one network has little to do
(benchmarks/ensemble.py). Either way each of the k is computed from its own slice only: a slice of
NaN or huge numbers leaves the others' results bit for bit the same.
"""

import copy
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from ktan.networks import NetworkSpec, build, multiply_adds
from ktan.tap_reader import TapReader, read_taps
from ktan.taps import Tap
from ktan.teachers.tsl import layer_in, without_layers

_CPU_MEGABYTES = 128
"""Of activations, that one network leaves on its way through a chunk of samples."""

_CPU_WORTH_STACKING = 8e6
"""Multiply-adds of one network on a chunk of samples, from which it keeps a core busy by itself."""

State = Mapping[str, Tensor]
"""Parameter or buffer name → [k, ...]."""


class Stack:
    """The architecture that k states share. Several threads may use one."""

    def __init__(self, spec: NetworkSpec, taps: Sequence[Tap], device: torch.device) -> None:
        """`taps` are what `read` returns, from the paths that they name in the network.

        Raises UserError for a path that the network does not have.
        """
        self.spec = spec
        self.taps = tuple(taps)
        self.device = device
        self._paths = [path for tap in taps for path in tap.paths]
        with torch.random.fork_rng(devices=[]):
            network = build(spec)
        self._network = network.to(device).requires_grad_(False)
        self._own = threading.local()
        # Fails here, in the constructor's thread, for a path that does not exist.
        self._reader()

    def _reader(self) -> TapReader:
        # functional_call swaps the parameters of the module it runs: a network for each thread.
        reader: TapReader | None = getattr(self._own, "reader", None)
        if reader is None:
            reader = read_taps(copy.deepcopy(self._network), self._paths)
            self._own.reader = reader
        return reader

    @property
    def has_buffers(self) -> bool:
        """Whether networks keep running statistics or the like beside their parameters."""
        return any(True for _ in self._network.buffers())

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and shapes of what is trained; the rest of a state are buffers."""
        return self._network.named_parameters()

    def logits(self, state: State, samples: Tensor, *, training: bool = False) -> Tensor:
        """One network: state without the leading k, normalised samples [n, ...] → [n, classes].

        To be mapped over k by `torch.func.vmap`.
        """
        network = self._reader().network
        network.train(training)
        logits: Tensor = torch.func.functional_call(network, dict(state), (samples,))
        return logits

    def features(self, state: State, samples: Tensor) -> dict[str, Tensor]:
        """One network, in evaluation mode: what its taps' paths put out; as `logits`."""
        reader = self._reader()
        reader.network.eval()
        return reader.functional(without_layers(state), samples)[1]

    @torch.no_grad()
    def is_random(self) -> bool:
        """Whether a pass in training mode draws random numbers (dropout, stochastic depth)."""
        network = copy.deepcopy(self._network).train()
        outputs = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            inputs = torch.randn(4, *self.spec.input_shape, device=self.device)
            for seed in (1, 2):
                torch.manual_seed(seed)
                outputs.append(copy.deepcopy(network)(inputs))
        return not torch.equal(*outputs)

    def reads_stacked(self, samples: int) -> bool:
        """Whether reading all networks at once is faster here than one after another.

        On a GPU it is the number of kernels that counts. On a CPU grouped convolutions and batched
        products lose to plain ones, but for networks and samples so few that calling an operation
        takes longer than computing it.
        """
        return self.device.type != "cpu" or samples * self._multiply_adds <= _CPU_WORTH_STACKING

    @cached_property
    def _multiply_adds(self) -> int:
        return multiply_adds(self.spec)

    @torch.no_grad()
    def read(
        self, state: State, samples: Tensor, *, stacked: bool | None = None
    ) -> dict[str, Tensor]:
        """k states and normalised samples [n, ...], the same for all → tap name → [k, n, ...].

        A state holds the layers of TSL taps, too (`ktan.teachers.tsl`). `stacked`: as one
        computation or one after another; the faster one (`reads_stacked`) when None.
        In evaluation mode, float32, before alignment. Not chunked: see `chunks`.
        """
        reader = self._reader()
        reader.network.eval()

        def one(own: dict[str, Tensor]) -> dict[str, Tensor]:
            logits, features = reader.functional(without_layers(own), samples)
            exact = {path: feature.float() for path, feature in features.items()}
            return {
                tap.name: tap.read(logits.float(), exact, layer_in(own, tap)).float()
                for tap in self.taps
            }

        k = len(next(iter(state.values())))
        if k > 1 and (self.reads_stacked(len(samples)) if stacked is None else stacked):
            return dict(torch.func.vmap(one)(dict(state)))
        found = [one({name: value[i] for name, value in state.items()}) for i in range(k)]
        return {tap.name: torch.stack([each[tap.name] for each in found]) for tap in self.taps}

    def chunks(self, teachers: int, samples: int) -> Iterator[tuple[slice, slice]]:
        """Slices of teachers and of samples that are best read at once.

        On a CPU few activations should leave its cache, of one network at a time; a GPU wants many
        of many.
        """
        megabytes = _CPU_MEGABYTES if self.device.type == "cpu" else 512
        rows = max(1, megabytes * 2**20 // self.bytes_a_row)
        # Chunks of one size: a small rest would be slow.
        width = max(1, -(-samples // max(1, -(-samples // min(rows, 256)))))
        stacked = teachers > 1 and self.reads_stacked(width)
        height = max(1, rows // width) if stacked else max(1, teachers)
        for first in range(0, teachers, height):
            for start in range(0, samples, width):
                yield slice(first, first + height), slice(start, start + width)

    @cached_property
    def bytes_a_row(self) -> int:
        """What the activations of one sample in one network take in float32: seen in a pass."""
        total = 0

        def count(_module: nn.Module, _inputs: object, output: object) -> None:
            nonlocal total
            if isinstance(output, Tensor):
                total += 4 * math.prod(output.shape)

        # Not on the meta device: there a batch norm has torch import its compiler, for seconds in
        # which a first request would wait.
        network = copy.deepcopy(self._network).eval()
        for module in network.modules():
            if not any(module.children()):
                module.register_forward_hook(count)
        network(torch.zeros(1, *self.spec.input_shape, device=self.device))
        return max(1, total)


def new_states(spec: NetworkSpec, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Fresh networks, one for each seed, as a state [k, ...] on the CPU."""
    states: list[dict[str, Tensor]] = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            states.append({n: v.detach() for n, v in build(spec).state_dict().items()})
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def state_slice(state: State, teachers: slice) -> dict[str, Tensor]:
    """The states of some of the k."""
    return {name: value[teachers] for name, value in state.items()}
