"""How large a network is, and how fast beside another.

Parameters and multiply-adds are counted and the same everywhere. Speed is measured, holds for one
machine, and means something only beside the speed of another network that was measured with it, in
turns: a machine that slows down for a while then slows both.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ktan.memory_format import channels_last
from ktan.networks.build import build, count_parameters, multiply_adds
from ktan.networks.spec import NetworkSpec
from ktan.precision import Precision, autocast

Forward = Callable[[Tensor], object]
"""A forward pass, float [n, *input_shape] -> anything."""

_Measured = TypeVar("_Measured")

_SHORTEST = 0.05
"""Seconds of one timing: far above a clock's step, and short enough to take turns often."""
_SINGLE = 3
"""Single passes a turn, at least: seven turns then have 20 of which one may be the slowest."""


@dataclass(frozen=True)
class Size:
    """What a network costs to keep and to run."""

    parameters: int
    multiply_adds: int
    """Of one sample."""

    def times(self, count: int) -> "Size":
        """Of `count` such networks that all run, as an ensemble's do."""
        return Size(count * self.parameters, count * self.multiply_adds)

    def compression(self, student: "Size") -> float:
        """How many times fewer parameters `student` has."""
        return self.parameters / student.parameters

    def saving(self, student: "Size") -> float:
        """How many times fewer multiply-adds `student` needs."""
        return self.multiply_adds / student.multiply_adds


@dataclass(frozen=True)
class SpeedUp:
    """Forward passes of two networks, measured in turns."""

    teacher: float
    """Samples a second, median over the turns."""
    student: float
    """Samples a second, median over the turns."""
    ratio: float
    """Student over teacher: the median of the turns' ratios."""
    batch: int
    """Samples of one pass."""
    turns: int


@dataclass(frozen=True)
class Timing:
    """Forward passes of one network, of those that were measured in turns."""

    median: float
    """Seconds of a pass that nothing follows until it is done."""
    p95: float
    """Of such passes, 95 in 100 take no longer."""
    throughput: float
    """Samples a second in passes one behind the other, median over the turns."""
    ratio: float
    """Throughput over that of the first network, the median of the turns' ratios."""


def size_of(spec: NetworkSpec) -> Size:
    """Counts; nothing is computed."""
    with torch.device("meta"):
        network = build(spec)
    return Size(count_parameters(network), multiply_adds(spec))


@torch.inference_mode()
def speed_up(
    teacher: Forward,
    student: Forward,
    input_shape: tuple[int, ...],
    *,
    device: torch.device,
    precision: Precision = "auto",
    batch: int = 100,
    turns: int = 7,
) -> SpeedUp:
    """Measures both on random samples, on `device` and in the given precision.

    A module is measured as it stands: `device`, channels_last and eval mode are the caller's.
    Takes about `2 · turns` times 0.05 s, or as long as one pass takes where that is more.
    """
    samples = torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(0))
    samples = channels_last(samples.to(device))
    with autocast(device, precision):
        timings = _in_turns((teacher, student), samples, turns, _seconds_a_pass)
    return SpeedUp(
        teacher=statistics.median(batch / slow for slow, _ in timings),
        student=statistics.median(batch / fast for _, fast in timings),
        ratio=statistics.median(slow / fast for slow, fast in timings),
        batch=batch,
        turns=turns,
    )


@torch.inference_mode()
def race(contenders: Sequence[Forward], samples: Tensor, turns: int = 7) -> list[Timing]:
    """Measures each on the same samples; the first is what the others are compared with.

    As `speed_up`, with the time of single passes beside, at least three a turn.
    """
    found = _in_turns(contenders, samples, turns, _single_and_following)
    timings = []
    for number in range(len(contenders)):
        single = [seconds for turn in found for seconds in turn[number][0]]
        following = [turn[number][1] for turn in found]
        timings.append(
            Timing(
                median=statistics.median(single),
                # The nearest rank: a pass that was seen, and no mixture of two.
                p95=sorted(single)[math.ceil(0.95 * len(single)) - 1],
                throughput=statistics.median(len(samples) / seconds for seconds in following),
                ratio=statistics.median(turn[0][1] / turn[number][1] for turn in found),
            )
        )
    return timings


def ready(network: nn.Module, device: torch.device) -> nn.Module:
    """The network as `speed_up` should meet it: on its device, channels_last, in eval mode."""
    return network.to(device).to(memory_format=torch.channels_last).eval()


def _in_turns(
    contenders: Sequence[Forward],
    samples: Tensor,
    turns: int,
    measure: Callable[[Forward, Tensor, int], _Measured],
) -> list[list[_Measured]]:
    """Turn by turn, what was measured of each; `measure` is given as many passes as a turn has."""
    passes = [_enough_passes(forward, samples) for forward in contenders]
    return [
        [measure(forward, samples, n) for forward, n in zip(contenders, passes, strict=True)]
        for _ in range(turns)
    ]


def _seconds_a_pass(forward: Forward, samples: Tensor, passes: int) -> float:
    return _seconds(forward, samples, passes) / passes


def _single_and_following(
    forward: Forward, samples: Tensor, passes: int
) -> tuple[list[float], float]:
    """Seconds of single passes; seconds of a pass among others that follow one another."""
    single = [_seconds(forward, samples, 1) for _ in range(max(_SINGLE, passes))]
    return single, _seconds_a_pass(forward, samples, passes)


def _enough_passes(forward: Forward, samples: Tensor) -> int:
    """Passes that take `_SHORTEST`; the first one, which compiles and allocates, is not timed."""
    _seconds(forward, samples, 1)
    passes = 1
    while (seconds := _seconds(forward, samples, passes)) < _SHORTEST:
        passes = max(2 * passes, int(passes * _SHORTEST / max(seconds, 1e-6)))
    return passes


def _seconds(forward: Forward, samples: Tensor, passes: int) -> float:
    _wait(samples.device)
    since = time.perf_counter()
    for _ in range(passes):
        forward(samples)
    _wait(samples.device)
    return time.perf_counter() - since


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
