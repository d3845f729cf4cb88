"""Checkpoints: weights, optimisers, random state and history in one safetensors file.

One file, replaced atomically: a crash leaves the previous checkpoint or the new one, never a mix.
Numbers travel in the header as JSON; nothing is pickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ktan.durable import write_durably
from ktan.errors import UserError
from ktan.optimisers import begin_momentum
from ktan.parallel import ONE, Group
from ktan.sharding import like, load_whole, whole


def save_weights(module: nn.Module, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Writes a module's parameters and buffers; `notes` go into the file's header."""
    write_durably(path, safetensors.torch.save(_plain(module.state_dict()), dict(notes or {})))


def load_weights(module: nn.Module, path: Path) -> dict[str, str]:
    """Loads what `save_weights` wrote and returns its notes.

    Raises UserError when the file is not there, damaged, or of another network.
    """
    tensors, notes = _read(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} holds the weights of another network: {error}") from error
    return notes


def save_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    state: Mapping[str, Any],
    device: torch.device,
    group: Group = ONE,
) -> None:
    """Writes everything that a run needs to go on; `state` is plain JSON.

    All processes of `group` call it, and the first one writes: one file, whatever their number.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors.update(_prefixed(f"module.{name}.", module.state_dict()))
    for name, optimiser in optimisers.items():
        for number, slots in optimiser.state_dict()["state"].items():
            tensors.update(_prefixed(f"optimiser.{name}.{number}.", slots))
    drawn = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        drawn["random.cuda"] = torch.cuda.get_rng_state(device)
    for name, generator in drawn.items():
        for rank, one in enumerate(group.gathered(generator)):
            tensors[_of_rank(name, rank)] = one
    if group.leads:
        write_durably(path, safetensors.torch.save(_plain(tensors), {"state": json.dumps(state)}))
    else:
        # Its part of what the first process puts together.
        for value in tensors.values():
            whole(value.detach())


def load_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    device: torch.device,
    group: Group = ONE,
) -> dict[str, Any]:
    """Restores modules, optimisers and random state in place; returns `state`.

    A process that `group` did not have when it was written draws as it is seeded.

    Raises UserError when the file is not there, damaged, or of another run.
    """
    tensors, notes = _read(path)
    try:
        for name, module in modules.items():
            load_whole(module, _stripped(f"module.{name}.", tensors))
        for name, optimiser in optimisers.items():
            values = optimiser.state_dict()
            values["state"] = _slots(_stripped(f"optimiser.{name}.", tensors))
            _spread_slots(optimiser, values["state"])
            optimiser.load_state_dict(values)
            lay_as_parameters(optimiser)
            begin_momentum(optimiser)
        rank = group.ranks.rank
        drawn = {name: tensors.get(_of_rank(name, rank)) for name in ("random.cpu", "random.cuda")}
        if drawn["random.cpu"] is not None:
            torch.set_rng_state(drawn["random.cpu"])
        elif rank == 0:
            raise KeyError("random.cpu")
        if device.type == "cuda" and drawn["random.cuda"] is not None:
            torch.cuda.set_rng_state(drawn["random.cuda"], device)
        state: dict[str, Any] = json.loads(notes["state"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} does not fit this run ({error}); use another folder, or the same options"
        ) from error
    return state


def checkpoint_state(path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint alone. Raises UserError when it is not there or damaged."""
    _, notes = _read(path, only_header=True)
    state: dict[str, Any] = json.loads(notes["state"])
    return state


def _read(path: Path, only_header: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = [] if only_header else list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _stripped(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _slots(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """`3.exp_avg` → {3: {"exp_avg": …}}: an optimiser's state by parameter number."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, slot = name.split(".", 1)
        slots.setdefault(int(number), {})[slot] = tensor
    return slots


def _spread_slots(optimiser: torch.optim.Optimizer, slots: dict[int, dict[str, Tensor]]) -> None:
    """Spreads each slot as its parameter is."""
    parameters = [value for group in optimiser.param_groups for value in group["params"]]
    for number, of_one in slots.items():
        for name, slot in of_one.items():
            if slot.shape == parameters[number].shape:
                of_one[name] = like(parameters[number], slot)


def _of_rank(name: str, rank: int) -> str:
    return f"{name}.{rank}" if rank else name


def lay_as_parameters(optimiser: torch.optim.Optimizer) -> None:
    """Gives each slot its parameter's strides (channels_last, say), which the file does not keep.

    A fused step walks memory, not indices: a slot of another layout meets the wrong weights.
    """
    for parameter, slots in optimiser.state.items():
        for name, slot in slots.items():
            if slot.shape == parameter.shape:
                slots[name] = torch.empty_like(parameter).copy_(slot)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses shared and strided memory."""
    return {
        name: whole(value.detach()).cpu().contiguous().clone() for name, value in tensors.items()
    }
