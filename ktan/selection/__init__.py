"""Which public samples to ask a teacher about: public data and the student only, no budget."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ktan.errors import UserError
from ktan.selection.k_centre import k_centre
from ktan.selection.uniform import uniform

Selection = Literal["random", "kcentre"]

__all__ = ["Selection", "k_centre", "select", "uniform"]


def select(
    name: Selection,
    count: int,
    candidates: int,
    *,
    features: Callable[[], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Indices int64 [count] of the samples to ask, out of `candidates`, in order of preference.

    `features`: gives the student's features [candidates, d]; called only by the selections that
    look at them. Raises UserError when there are fewer candidates than asked for.
    """
    if count > candidates:
        raise UserError(
            f"{count} queries asked for, {candidates} unlabelled public samples are there; "
            "lower --queries or give more public data"
        )
    if name == "random":
        return uniform(count, candidates, generator)
    if name == "kcentre":
        if features is None:
            raise ValueError("kcentre looks at the student's features; none were given")
        return k_centre(features(), count, generator)
    raise UserError(f"unknown selection {name!r}; choose random or kcentre")
