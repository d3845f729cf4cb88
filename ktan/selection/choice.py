"""One door to the selections, by name."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ktan.errors import UserError
from ktan.selection.entropy import entropy
from ktan.selection.k_centre import k_centre
from ktan.selection.margin import margin
from ktan.selection.margin_k_centre import margin_k_centre
from ktan.selection.rounds import not_asked
from ktan.selection.uniform import uniform

Selection = Literal["random", "margin", "entropy", "kcentre", "margin+kcentre"]


def select(
    name: Selection,
    count: int,
    candidates: int,
    *,
    features: Callable[[], Tensor] | None = None,
    logits: Callable[[], Tensor] | None = None,
    already: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Indices int64 [count] of the samples to ask, out of `candidates`, in order of preference.

    `features`, `logits`: give the student's float [candidates, d] and float [candidates, classes];
    called only by the selections that look at them. `already`: int64 indices asked in earlier
    rounds, never chosen again; k-centre continues from them. `generator`: draws `random`'s order,
    k-centre's first centre and the order of equal scores; with one of the same seed and the same
    student, rounds choose what one long run would (`margin+kcentre` apart, which looks at each
    round's own smallest margins).

    Raises UserError when fewer candidates are left than asked for, for an unknown name, and for a
    student that is not finite.
    """
    if name not in get_args(Selection):
        choices = get_args(Selection)
        raise UserError(
            f"unknown selection {name!r}; choose {', '.join(choices[:-1])} or {choices[-1]}"
        )
    asked = int((~not_asked(candidates, already)).sum())
    if count > candidates - asked:
        before = f", {asked} of them asked before" if asked else ""
        raise UserError(
            f"{count} queries asked for, {candidates} unlabelled public samples are there{before}; "
            "lower --queries or give more public data"
        )
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    if name == "random":
        return uniform(count, candidates, generator, already=already)
    if name == "kcentre":
        found = _read(name, "features", features, candidates)
        return k_centre(found, count, generator, already=already)
    scores = _read(name, "logits", logits, candidates)
    if name == "margin":
        return margin(scores, count, generator, already=already)
    if name == "entropy":
        return entropy(scores, count, generator, already=already)
    found = _read(name, "features", features, candidates)
    return margin_k_centre(scores, found, count, generator, already=already)


def _read(name: str, what: str, give: Callable[[], Tensor] | None, candidates: int) -> Tensor:
    """What the student gives for every candidate. Raises UserError when it is not finite."""
    if give is None:
        raise ValueError(f"{name} looks at the student's {what}; none were given")
    found = give()
    if len(found) != candidates:
        raise ValueError(f"{what} of {len(found)} samples for {candidates} candidates")
    # The smallest and largest are NaN where anything is, and need no memory of their own.
    if not torch.stack(found.aminmax()).isfinite().all():
        raise UserError(
            f"the student's {what} are not finite: its training diverged; lower its learning "
            "rate, or choose samples at random"
        )
    return found
