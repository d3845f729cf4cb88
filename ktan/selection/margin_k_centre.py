"""Margin, then k-centre: samples the student wavers on, no two of them alike."""

import math

import torch
from torch import Tensor

from ktan.selection.k_centre import k_centre
from ktan.selection.margin import margin
from ktan.selection.rounds import not_asked
from ktan.spool import taken

KEEP = 10
"""Samples of smallest margin kept for each that is wanted; Zhdanov 2019 filters so before it
clusters."""


def kept(count: int, available: int, keep: int = KEEP) -> int:
    """Samples that pass the margin: `keep`·count, at most √(count·available).

    The cap holds when more than a hundredth of the samples is wanted. It lets both criteria refuse
    the same share; without it a tenth of the samples would be chosen by k-centre alone.
    """
    return max(count, min(keep * count, math.isqrt(count * available)))


def margin_k_centre(
    logits: Tensor,
    features: Tensor,
    count: int,
    generator: torch.Generator | None = None,
    *,
    already: Tensor | None = None,
    keep: int = KEEP,
) -> Tensor:
    """int64 [count] on the CPU, distinct, none of `already`: k-centre among the smallest margins.

    `logits`: float [n, classes]; `features`: float [n, d]; `already`: int64 indices, centres from
    the beginning; `keep`: see `kept`.
    """
    if len(logits) != len(features):
        raise ValueError(f"logits of {len(logits)} samples, features of {len(features)}")
    free = not_asked(len(logits), already)
    asked = (~free).nonzero().squeeze(1)
    wavering = margin(logits, kept(count, int(free.sum()), keep), generator, already=asked)
    # The centres there are stand first, so that k-centre continues from them.
    rows = torch.cat([asked, wavering])
    looked_at = taken(features, rows.to(features.device))
    found = k_centre(looked_at, count, generator, already=torch.arange(len(asked)))
    return rows[found]
