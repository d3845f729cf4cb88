"""Whole passes of frozen networks as one call in which no Python runs (`torch.jit.trace`).

In a service other threads need Python while a batch is computed: parse requests, settle charges.
Each small layer that returns to Python would wait for them. Traced once, all networks run in one
call that holds nothing up. Whether that works is found on a fresh network of the architecture, so
that no trained value decides it; where it does not, networks run as they are.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ktan.memory_format import channels_last
from ktan.precision import Precision, autocast

Pass = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
"""float [n, ...] → logits, path → what was read there."""
Outputs = Callable[[Tensor], Sequence[Sequence[Tensor]]]
"""float [n, ...] → for each network the logits (where they are read) and what its paths say."""

_TRACED, _OTHERS = 3, (1, 8)
"""Samples of the batch that is traced, and of those that must come out right by it."""
_CLOSE = 1e-3


def plain(passes: Sequence[Pass], paths: Sequence[str], *, logits: bool) -> Outputs:
    """The networks as they are, one after another."""

    def run(samples: Tensor) -> list[list[Tensor]]:
        answered = []
        for one in passes:
            own, features = one(samples)
            answered.append([own] * logits + [features[path] for path in paths])
        return answered

    return run


def can_script(
    fresh: Pass,
    paths: Sequence[str],
    input_shape: tuple[int, ...],
    device: torch.device,
    precision: Precision,
    *,
    logits: bool,
) -> bool:
    """Whether a network of this architecture answers any number of samples alike when scripted."""
    as_it_is = plain([fresh], paths, logits=logits)
    try:
        traced = script([fresh], paths, input_shape, device, precision, logits=logits)
        with torch.inference_mode(), autocast(device, precision), torch.random.fork_rng([]):
            torch.manual_seed(0)
            for count in (*_OTHERS, _TRACED):
                samples = channels_last(torch.randn(count, *input_shape, device=device))
                # Twice: what is optimised runs from the second call on.
                for _ in range(3):
                    (found,), (exact,) = traced(samples), as_it_is(samples)
                    for one, other in zip(found, exact, strict=True):
                        if one.shape != other.shape or not torch.allclose(
                            one.float(), other.float(), rtol=_CLOSE, atol=_CLOSE
                        ):
                            return False
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    return True


def script(
    passes: Sequence[Pass],
    paths: Sequence[str],
    input_shape: tuple[int, ...],
    device: torch.device,
    precision: Precision,
    *,
    logits: bool,
) -> Outputs:
    """The same as `plain`, as one call. Raises RuntimeError and others for what cannot be traced.

    Weights stay where they are. Networks whose weights are equal to the last bit may be computed
    once for all of them, with the same answers; no other value decides what is done.
    """
    one_by_one = plain(passes, paths, logits=logits)

    def flat(samples: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for answered in one_by_one(samples) for value in answered)

    samples = channels_last(torch.zeros(_TRACED, *input_shape, device=device))
    with warnings.catch_warnings(), torch.no_grad(), autocast(device, precision):
        # That sizes are constants, where they are, is found by running other sizes.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(flat, samples, check_trace=False)  # type: ignore[no-untyped-call]
    width = len(paths) + logits

    def run(samples: Tensor) -> list[Sequence[Tensor]]:
        values = traced(samples)
        return [values[start : start + width] for start in range(0, len(values), width)]

    return run
