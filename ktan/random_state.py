"""Random state of a training's own: what it draws, nobody else sees, and a resumed run goes on.

Seeded generators only; the noise of a private teacher never comes from here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomState:
    """Torch's generators as one training has left them: the CPU's and, on a GPU, that device's."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device
        self._states = _seeded(seed, device)

    @contextmanager
    def within(self) -> Iterator[None]:
        """Within, torch's generators are this training's; they go on where they were."""
        kept = _states(self._device)
        _restore(self._states, self._device)
        try:
            yield
        finally:
            self._states = _states(self._device)
            _restore(kept, self._device)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """The same, and what is drawn is drawn again afterwards: a look that changes nothing."""
        kept = self._states
        with self.within():
            yield
        self._states = kept

    @property
    def states(self) -> list[Tensor]:
        """uint8 tensors on the CPU, for a checkpoint."""
        return list(self._states)

    def restored(self, states: Sequence[Tensor], device: torch.device) -> "RandomState":
        """Goes on from `states`, on `device`; a generator that they lack begins as seeded."""
        found = RandomState(self._seed, device)
        found._states = [
            fresh if place >= len(states) else states[place].cpu()
            for place, fresh in enumerate(found._states)
        ]
        return found


def _seeded(seed: int, device: torch.device) -> list[Tensor]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _states(device)


def _states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _restore(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
