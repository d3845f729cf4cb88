"""TensorBoard's event file of a run."""

from collections.abc import Mapping
from pathlib import Path


class Scalars:
    """Curves as TensorBoard reads them; steps after `done` of an earlier run are struck out."""

    def __init__(self, folder: Path, done: int) -> None:
        # Takes more than a second to import.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One point of each curve."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()
