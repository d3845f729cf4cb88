"""The public reference: a network trained on public labelled samples, and what is found on it.

It costs no privacy, and gives what must not come from private records: where teachers begin, the
frame in which hints are aligned, and the bounds B (RONA's adaptive bound: a quantile of the norms
of a teacher that was trained on public data only).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec
from ktan.taps import Tap
from ktan.teachers import Alignment, CardTap, Frame, Mode, Stack
from ktan.teachers.stack import State, state_slice


@dataclass(frozen=True, eq=False)
class PublicReference:
    """Bounds and frames; functions of public data."""

    taps: tuple[CardTap, ...]
    frames: dict[str, Frame]
    """Tap name → frame, for the taps that are aligned."""


def is_aligned(tap: Tap, mode: Mode) -> bool:
    """Whether a tap goes through alignment. Raises UserError for one that must and cannot.

    All vectors of features of an ensemble do (hints, reduced products), and every reduced or
    bounded one; the whole hint of a `dp-sgd` teacher needs neither a frame nor a bound. Whole maps,
    signs and whole products cannot. Attention need not: it is a mean over channels, and says the
    same whichever channel is which.
    """
    if tap.is_vector:
        return mode != "dp-sgd" or tap.dimensions is not None
    if mode == "ensemble":
        _require_common_meaning(tap)
    return False


def _require_common_meaning(tap: Tap) -> None:
    """Raises UserError for what k teachers say each in channels of its own."""
    if tap.whole_map:
        raise UserError(
            f"tap {tap.text}: whole maps of an ensemble cannot be aligned, and their mean says "
            "nothing; reduce it (hint=PATH:8) or use dp-sgd"
        )
    if tap.kind == "signs":
        raise UserError(
            f"tap {tap.text}: the units of an ensemble's networks have nothing to do with one "
            "another, so that the mean of their signs says nothing, and no rotation of signs gives "
            f"signs; use dp-sgd, or attention={tap.path}:4 in their place"
        )
    if tap.kind == "tsl":
        raise UserError(
            f"tap {tap.text}: whole maps of an ensemble cannot be aligned, and their mean says "
            f"nothing; take the mean over positions (tsl={tap.path}:{tap.shape[0]}) or use dp-sgd"
        )
    if tap.kind == "products":
        raise UserError(
            f"tap {tap.text}: whole products of an ensemble cannot be aligned, and their mean says "
            f"nothing; reduce them ({tap.text}:8) or use dp-sgd"
        )


def needs_public(tap: Tap, mode: Mode) -> bool:
    """Whether a tap's frame or bound is found on public samples. Raises as `is_aligned`."""
    return is_aligned(tap, mode) or (mode != "dp-sgd" and _known_bound(tap) is None)


def _known_bound(tap: Tap) -> tuple[float, str] | None:
    """B of a kind whose norm is known before anything is measured, and why; None for others."""
    if tap.kind == "probabilities":
        return 1.0, "probabilities are at least 0 and sum to 1"
    if tap.kind == "attention":
        return 1.0, "attention has unit norm by construction"
    if tap.kind == "signs":
        count = math.prod(tap.shape)
        return math.sqrt(count), f"{count} signs have the norm of its root by construction"
    return None


def measure_reference(
    state: State,
    spec: NetworkSpec,
    taps: Sequence[Tap],
    mode: Mode,
    public: Tensor,
    quantile: float,
    origin: str,
    device: torch.device,
) -> PublicReference:
    """Frames and bounds from the reference `state` (name → [1, ...]) on `public` samples.

    `public`: normalised, [n, ...], n >= 2 where a tap `needs_public`; `origin`: what the
    reference is, for the card.
    Raises UserError where the reference cannot give a bound.
    """
    measured = [tap for tap in taps if needs_public(tap, mode)]
    said = _read(Stack(spec, measured, device), state, public) if measured else {}
    frames = {
        tap.name: Frame.of(said[tap.name][0], tap.dimensions, turned=tap.kind != "tsl")
        for tap in measured
        if is_aligned(tap, mode)
    }
    entries = []
    for tap in taps:
        if mode == "dp-sgd":
            source = "none: answers are post-processing of the weights"
            if tap.kind == "tsl":
                source += (
                    ", through a layer trained on public samples and the teacher's own answers"
                )
            entries.append(CardTap(tap, 0.0, source))
        elif known := _known_bound(tap):
            entries.append(CardTap(tap, *known))
        else:
            values = frames[tap.name].reduced if tap.name in frames else said[tap.name][0]
            bound = _bound(tap, values, quantile)
            entries.append(
                CardTap(tap, bound, f"{quantile:g} quantile of {origin} on {len(public)} samples")
            )
    return PublicReference(tuple(entries), frames)


def align_teachers(
    weights: State,
    spec: NetworkSpec,
    reference: PublicReference,
    public: Tensor,
    device: torch.device,
) -> dict[str, Alignment]:
    """Tap name → alignment of all k teachers, for each frame; one teacher at a time."""
    if not reference.frames:
        return {}
    taps = [entry.tap for entry in reference.taps if entry.tap.name in reference.frames]
    stack = Stack(spec, taps, device)
    parts: dict[str, list[Alignment]] = {name: [] for name in reference.frames}
    for teacher in range(len(next(iter(weights.values())))):
        said = _read(stack, state_slice(weights, slice(teacher, teacher + 1)), public)
        for name, frame in reference.frames.items():
            parts[name].append(frame.align(said[name]))
    return {name: Alignment.stack(found) for name, found in parts.items()}


def public_normalisation(public: Tensor) -> Normalisation:
    """From the public samples [n, ...]; a constant one where there are none."""
    return Normalisation.of_public(public) if len(public) else Normalisation.neutral(public)


def _read(stack: Stack, state: State, public: Tensor) -> dict[str, Tensor]:
    own = {name: value.to(stack.device) for name, value in state.items()}
    parts = [
        stack.read(own, public[part].to(stack.device)) for _, part in stack.chunks(1, len(public))
    ]
    return {tap.name: torch.cat([part[tap.name] for part in parts], dim=1) for tap in stack.taps}


def _bound(tap: Tap, values: Tensor, quantile: float) -> float:
    values = values.flatten(1).double().cpu()
    if tap.kind == "logits":
        values = values - values.mean(dim=1, keepdim=True)
    norms = values.norm(dim=1).sort().values
    # Rounded to two figures: B needs no more, and reads better.
    bound = float(f"{float(norms[round(quantile * (len(norms) - 1))]):.2g}")
    if not 0 < bound < float("inf"):
        raise UserError(
            f"tap {tap.text}: the public reference says the same of every public sample, so no "
            "bound can be found; give it more public labels (--labelled) or --reference-steps"
        )
    return bound
