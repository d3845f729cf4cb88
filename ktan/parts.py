"""Samples, labels or answers of any number, read in parts that memory has room for."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ktan.data_parts import Rows

LIMIT = 1 << 28
"""Bytes of one part, at most, unless a single row has more."""


def parts(*columns: Rows) -> Iterator[tuple[Tensor, ...]]:
    """The rows of all columns, which are of one length, in order; as few parts as `LIMIT` allows.

    Whoever reads them lets go of one part before the next, or holds two.
    """
    each = sum(torch.Size(rows.shape[1:]).numel() * rows.dtype.itemsize for rows in columns)
    step = max(1, LIMIT // max(1, each))
    for start in range(0, len(columns[0]), step):
        yield tuple(rows[start : start + step] for rows in columns)


def mean_over(mean: Callable[..., Tensor], *columns: Rows) -> Tensor:
    """The mean over all rows, of the `mean` of each part (one argument a column).

    In the dtype of those, weighted by the parts' rows and added in float64: of one part it is that
    part's, bit for bit. Raises ValueError where there is no row.
    """
    dtype, total = torch.float32, None
    for read in parts(*columns):
        found, count = mean(*read), len(read[0])
        # Or it would stay in memory beside the next one.
        del read
        weighted = found.double() * count
        dtype, total = found.dtype, weighted if total is None else total + weighted
    if total is None:
        raise ValueError("there is no row to take a mean of")
    return (total / len(columns[0])).to(dtype)
