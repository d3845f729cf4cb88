"""The resumable state of a stack of teachers in training: one safetensors file."""

from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ktan.durable import write_durably
from ktan.errors import UserError


@dataclass
class StackState:
    """Parameters, running statistics, optimiser and the number of steps taken."""

    parameters: dict[str, nn.Parameter]
    """name → [k', ...]."""
    buffers: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path, fingerprint: str) -> None:
        """Writes the state; only ever on the secure host, like the weights it holds."""
        tensors: dict[str, Tensor] = {f"value.{n}": v for n, v in self._values().items()}
        names = list(self.parameters)
        for number, slots in self.optimiser.state_dict()["state"].items():
            tensors.update({f"{slot}.{names[number]}": value for slot, value in slots.items()})
        plain = {n: v.detach().cpu().contiguous().clone() for n, v in tensors.items()}
        notes = {"step": str(self.step), "recipe": fingerprint}
        write_durably(path, safetensors.torch.save(plain, notes), mode=0o600)

    def load(self, path: Path, fingerprint: str, *, frozen: bool = False) -> None:
        """Restores what `save` wrote. Raises UserError for another recipe's or a damaged file.

        `frozen`: buffers never change in training, and say behind what the parameters are trained;
        a file with other ones is not restored, so that training begins anew.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                notes = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise UserError(f"{path} is damaged ({error}); train anew") from error
        if notes["recipe"] != fingerprint:
            raise UserError(
                f"{path} was written by a run with other options; resume with the options of that "
                "run, or train anew into another folder"
            )
        if frozen and any(
            _bits(tensors[f"value.{n}"]) != _bits(v) for n, v in self.buffers.items()
        ):
            return
        with torch.no_grad():
            for name, value in self._values().items():
                value.copy_(tensors[f"value.{name}"])
        content = self.optimiser.state_dict()
        numbers = {name: number for number, name in enumerate(self.parameters)}
        content["state"] = {}
        for key, value in tensors.items():
            slot, _, name = key.partition(".")
            if slot != "value":
                content["state"].setdefault(numbers[name], {})[slot] = value
        self.optimiser.load_state_dict(content)
        self.step = int(notes["step"])

    def _values(self) -> dict[str, Tensor]:
        return {**self.parameters, **self.buffers}


def step_of(path: Path) -> int:
    """How many steps the state in a file has taken. Raises UserError for a damaged one."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return int(file.metadata()["step"])
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); train anew") from error


def _bits(value: Tensor) -> bytes:
    """By which a NaN, too, is equal to itself: an empty shard's teacher is nothing else."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
