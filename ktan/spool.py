"""Large tensors in a file without a name, so that they need no memory of their own.

Such a tensor is a memory map: the kernel writes to disk what memory does not hold. It goes with the
process. The file lies in `TMPDIR`, else in /var/tmp: never in a file system that is memory itself.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ktan.errors import UserError

LIMIT = 1 << 28
"""Bytes up to which a tensor is in memory."""
_BLOCK = 1 << 24
"""Bytes copied at once."""


def spooled(shape: Iterable[int], dtype: torch.dtype, *, in_memory: int | None = None) -> Tensor:
    """A tensor on the CPU, not filled; above `in_memory` bytes (`LIMIT` when None) in a file.

    Raises UserError when there is no room for the file.
    """
    shape = tuple(shape)
    size = torch.Size(shape).numel() * dtype.itemsize
    if size <= (LIMIT if in_memory is None else in_memory):
        return torch.empty(shape, dtype=dtype)
    folder = _folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # A file with holes would end the process where the disk is full.
            os.posix_fallocate(file.fileno(), 0, size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise UserError(
            f"{size / 1e9:.1f} GB that do not belong in memory find no room in {folder} "
            f"({error.strerror}); name a folder on a larger disk with TMPDIR"
        ) from error
    return torch.frombuffer(mapped, dtype=dtype).view(shape)


def taken(samples: Tensor, rows: Tensor) -> Tensor:
    """`samples[rows]`; above `LIMIT` bytes, of samples on the CPU, in a file.

    rows: int64 [n], or bool [len(samples)].
    """
    rows = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows
    each = max(1, samples[:1].nbytes)
    if samples.device.type != "cpu" or each * len(rows) <= LIMIT:
        return samples[rows]
    copy = spooled((len(rows), *samples.shape[1:]), samples.dtype)
    for part in torch.split(torch.arange(len(rows)), max(1, _BLOCK // each)):
        copy[part[0] : part[-1] + 1] = samples[rows[part]]
    return copy


def _folder() -> str:
    """Where temporary files are on a disk."""
    if "TMPDIR" not in os.environ and Path("/var/tmp").is_dir():
        return "/var/tmp"
    return tempfile.gettempdir()
