"""A frozen network made ready to answer fast: less to compute, the same answers.

Nothing runs behind the last layer that is read; batch norms are folded into the convolutions
before them (`ktan.teachers.folding`), and weights lie in the type in which they multiply.
"""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ktan.precision import Precision, autocast, half_type
from ktan.tap_reader import read_taps
from ktan.teachers.folding import dry_run, folded

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class AnsweringNetwork:
    """Runs one network in evaluation mode, and hands out what is read of it."""

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        paths: Sequence[str],
        *,
        logits: bool,
        precision: Precision,
        as_it_is: bool = False,
    ) -> None:
        """`paths`: what is read; `logits`: whether the network's output is read, too.

        `as_it_is`: runs the network itself, whose weights may change, instead of a folded copy.
        """
        self._device = next(network.parameters(), torch.empty(0)).device
        self._precision = precision
        if not as_it_is:
            network = folded(network, input_shape, paths)
            lower(network, half_type(self._device, precision))
        self._read = ReadNetwork(network, paths, last_read(network, input_shape, paths, logits))

    def __call__(self, samples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """float [n, ...] (normalised) → logits [n, classes], [n, 0] where they are not read, and
        path → [n, ...], as the network puts them out."""
        with torch.inference_mode(), autocast(self._device, self._precision):
            return self._read(samples)

    def close(self) -> None:
        """Takes the hooks off the network."""
        self._read.close()


class Stop(NamedTuple):
    """Where a forward pass has seen enough."""

    path: str
    """Of what is read last."""
    runs: int
    """How many times it runs until then."""


class ReadNetwork:
    """A network with hooks that keep what is read, and end the pass there. Threads may share it."""

    def __init__(self, network: nn.Module, paths: Sequence[str], stop: Stop | None) -> None:
        self._reader = read_taps(network, paths)
        # The reader's hooks stand before the one that stops, and see what it stops at.
        self._cut = None if stop is None else _Cut(network, stop)

    def __call__(self, samples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `AnsweringNetwork`, in the mode and the precision around it."""
        return self._reader(samples, self._cut)

    def close(self) -> None:
        """Takes the hooks off the network."""
        self._reader.close()
        if self._cut is not None:
            self._cut.close()


class _Reached(Exception):
    """No error: it ends a forward pass early."""


class _Cut:
    """Runs a network until it has seen enough."""

    def __init__(self, network: nn.Module, stop: Stop) -> None:
        self._network, self._runs = network, stop.runs
        # Each thread counts the runs of its own pass.
        self._running = threading.local()
        self._handle = _hook(network, stop.path, self._count)

    def __call__(self, samples: Tensor) -> Tensor:
        """Nothing [n, 0] instead of the logits."""
        self._running.left = self._runs
        try:
            self._network(samples)
        except _Reached:
            pass
        finally:
            self._running.left = 0
        return samples.new_empty(len(samples), 0)

    def close(self) -> None:
        """Takes the hook off the network."""
        self._handle.remove()

    def _count(self) -> None:
        # 0 outside a pass: the network itself may be run by others meanwhile.
        left = getattr(self._running, "left", 0)
        if left:
            self._running.left = left - 1
            if left == 1:
                raise _Reached


def last_read(
    network: nn.Module, input_shape: tuple[int, ...], paths: Sequence[str], logits: bool
) -> Stop | None:
    """Where a pass may end; None where its end is read, or nothing is.

    Raises UserError for a path that is not there, or whose output the network overwrites.
    """
    # Not in inference mode, in which nobody could see that an output was overwritten.
    dry_run(network, input_shape, paths)
    seen: list[str] = []
    handles = [_hook(network, path, lambda *_, path=path: seen.append(path)) for path in paths]
    dry_run(network, input_shape, ())
    for handle in handles:
        handle.remove()
    return None if logits or not seen else Stop(seen[-1], seen.count(seen[-1]))


def _hook(network: nn.Module, path: str, call: Any) -> Any:
    """`call` where a tap of this path is read: `PATH.input` before the module, else behind it."""
    modules = dict(network.named_modules())
    if path in modules:
        return modules[path].register_forward_hook(lambda *_: call())
    return modules[path.removesuffix(".input")].register_forward_pre_hook(lambda *_: call())


def lower(network: nn.Module, half: torch.dtype | None) -> None:
    """Weights that autocast would convert in every pass, converted once."""
    if half is not None:
        for module in network.modules():
            if type(module) in _WEIGHTED and not parametrize.is_parametrized(module):
                module.to(half)
