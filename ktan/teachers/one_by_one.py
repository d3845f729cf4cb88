"""k networks of one architecture that answer one after another, each with its own weights for good.

What a CPU does with any number of teachers, and any device with one. Every network is made ready
once: no batch norm that could be folded, weights in the order and the type in which they multiply.
What is folded, and where a pass ends, is found on a fresh network, so that no trained value
decides which work is done. Threads share the networks, since a pass changes nothing in them.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ktan.cpp_compiler import require_compiler
from ktan.errors import UserError
from ktan.memory_format import channels_last
from ktan.networks import NetworkSpec, build
from ktan.precision import Precision, autocast, half_type
from ktan.taps import Tap
from ktan.teachers.answering import ReadNetwork, last_read, lower
from ktan.teachers.folding import fold, foldable
from ktan.teachers.scripted import Pass, can_script, plain, script
from ktan.teachers.tsl import layer_in, without_layers


class OneByOne:
    """Thread-safe. Network i is a function of slice i of the weights, and of the architecture."""

    def __init__(
        self,
        spec: NetworkSpec,
        taps: Sequence[Tap],
        weights: Mapping[str, Tensor],
        device: torch.device,
        precision: Precision,
        *,
        compiled: bool = False,
    ) -> None:
        """`weights`: name → [k, ...], with the layers of TSL taps (`ktan.teachers.tsl`).

        `compiled` hands the pass to torch.compile, here and now; it takes minutes. Raises
        UserError for weights of another network, for a path that it does not have, and where
        there is no compiler.
        """
        self._device, self._precision = device, precision
        self._classes = spec.classes
        self._ends = [tap for tap in taps if not tap.paths]
        self._inside = [tap for tap in taps if tap.paths]
        paths = list(dict.fromkeys(path for tap in taps for path in tap.paths))
        with torch.random.fork_rng(devices=[]):
            fresh = build(spec).eval().requires_grad_(False)
        pairs = foldable(fresh, spec.input_shape, paths)
        stop = last_read(fresh, spec.input_shape, paths, bool(self._ends))
        half = half_type(device, precision)
        networks: list[Pass] = []
        self._layers = []
        for state in _each(weights):
            network = fold(_loaded(fresh, without_layers(state)).to(device), pairs)
            network.to(memory_format=torch.channels_last)
            lower(network, half)
            networks.append(ReadNetwork(network, paths, stop))
            self._layers.append(
                [layer_in({n: v.to(device) for n, v in state.items()}, t) for t in self._inside]
            )
        self._networks, self._paths = networks, paths
        logits = bool(self._ends)
        self._run = plain(networks, paths, logits=logits)
        if compiled:
            self._run = plain(self._compiled(networks, spec.input_shape), paths, logits=logits)
        elif device.type == "cpu":
            fresh = fold(fresh, pairs).to(memory_format=torch.channels_last)
            lower(fresh, half)
            like = spec.input_shape, device, precision
            if can_script(ReadNetwork(fresh, paths, stop), paths, *like, logits=logits):
                self._run = script(networks, paths, *like, logits=logits)

    def _compiled(self, networks: Sequence[Pass], input_shape: tuple[int, ...]) -> list[Pass]:
        if self._device.type == "cpu":
            require_compiler("a compiled teacher", "do not compile it")
        compiled: list[Pass] = [torch.compile(one, dynamic=True) for one in networks]
        # One sample, and then any number: no client waits for a compiler.
        for count in (64, 1, 8):
            samples = channels_last(torch.zeros(count, *input_shape, device=self._device))
            with torch.inference_mode(), autocast(self._device, self._precision):
                for network in compiled:
                    network(samples)
        return compiled

    @torch.inference_mode()
    def read(self, samples: Tensor, into: Mapping[str, Tensor]) -> None:
        """What each says of normalised samples [n, ...], before alignment.

        `into`: tap name → float32 [k, n, ...], written.
        """
        if self._ends:
            shape = (len(self._layers), len(samples), self._classes)
            logits = torch.empty(shape, device=self._device)
        samples = channels_last(samples)
        # One autocast for all: to enter it takes longer than a small layer.
        with autocast(self._device, self._precision):
            answered = self._run(samples)
            for number, (own, read) in enumerate(map(self._parted, answered)):
                if self._ends:
                    logits[number].copy_(own)
                if self._inside:
                    # Squares and products of features are made in float32.
                    exact = {p: value.float() for p, value in zip(self._paths, read, strict=True)}
                    for tap, layer in zip(self._inside, self._layers[number], strict=True):
                        into[tap.name][number].copy_(tap.read(own, exact, layer))
        for tap in self._ends:
            into[tap.name].copy_(tap.read(logits, {}))

    def _parted(self, values: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """Logits, or whatever stands for them where they are not read, and the features."""
        return values[0], values[1:] if self._ends else values


def _each(weights: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for number in range(len(next(iter(weights.values())))):
        yield {name: value[number] for name, value in weights.items()}


def _loaded(fresh: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A network that holds the given tensors themselves."""
    network = copy.deepcopy(fresh)
    try:
        network.load_state_dict(dict(state), assign=True)
    except RuntimeError as error:
        raise UserError(f"the weights are of another network: {error}") from error
    return network.requires_grad_(False)
