"""Relations between singular vectors of consecutive maps: KD-SVD (Lee et al. 2018).

A map [c, h, w], unfolded to (h·w) × c, has right singular vectors v in R^c. Two that follow one
another are related by R_ab = exp(−(v_i[a] − v_{i−1}[b])² / 8), and

    L = Σ_i ‖R_s^i − R_t^i‖² / B

The k vectors of a teacher's map are scaled by their singular values (of unit norm), the student's
by the teacher's. A student's vector is that of its first k + 3 with the largest |cos| to the
teacher's, on the same side. A vector's sign is free, and the relation depends on it: the teacher's
is turned so that its sum is not negative, which behind a ReLU the first one's is anyhow
(Perron–Frobenius). The original takes the signs as they come.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_MORE = 3
"""How many vectors of the student stand to choice beyond the teacher's."""
_SQUARINGS = 10
"""A Gram matrix to the power 2^10: what stood at 0.98 of the first value is at 1e-9 of it."""
_LEAST_GAP = 1e-3
"""Between eigenvalues of a Gram matrix of trace 1, in the gradient."""


def singular_vector_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], vectors: int = 1
) -> Tensor:
    """The loss above over all pairs of consecutive maps; a scalar, 0 for equal maps.

    `student`, `teacher`: float [n, c_i, h, w] of tap i, in order of running; a student's map has
    its teacher's channels and any size. `vectors`: k. In float32, under autocast too.
    """
    nodes = [_nodes(*maps, vectors) for maps in zip(student, teacher, strict=True)]
    parts = [
        (_relation(s, s_before) - _relation(t, t_before)).square().sum() / max(len(s), 1)
        for (s_before, t_before), (s, t) in itertools.pairwise(nodes)
    ]
    return torch.stack(parts).sum()


def right_singular_vectors(feature: Tensor, vectors: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors of each sample's (h·w) × c matrix, and its values.

    `feature`: float [n, c, h, w] → float32 [n, c, k], of unit length and free sign, and [n, k],
    descending, without gradient, of a map of unit Frobenius norm; k is `vectors`, or as many as
    there are. From the eigenvectors of the c × c Gram matrix: one batched `eigh`.
    """
    with torch.autocast(feature.device.type, enabled=False):
        gram = _gram(feature)
        count = min(vectors, feature.shape[1], feature[0, 0].numel())
        found, values = _LeadingEigenvectors.apply(gram, count)
    return found, values.clamp(min=0).sqrt()


@torch.no_grad()
def first_singular_vector(feature: Tensor) -> Tensor:
    """The first right singular vector alone, [n, c, 1], of free sign and without gradient.

    By squaring the Gram matrix again and again: a tenth of `eigh`'s time, and as exact where the
    second value is not within 2 % of the first. There a mixture of the two comes out, as rounding
    decides in `eigh` when they coincide.
    """
    with torch.autocast(feature.device.type, enabled=False):
        gram = _gram(feature)
        power = gram
        for _ in range(_SQUARINGS):
            power = power @ power
            trace = power.diagonal(dim1=1, dim2=2).sum(dim=1)
            power = power / trace.clamp(min=1e-30)[:, None, None]
        # λ·v·vᵀ by now: each column is the vector, the longest one the best.
        longest = power.diagonal(dim1=1, dim2=2).argmax(dim=1)
        column = power.gather(2, longest[:, None, None].expand(-1, power.shape[1], 1))
        return F.normalize(gram @ column, dim=1)


def _gram(feature: Tensor) -> Tensor:
    """Fᵀ·F of each sample's (h·w) × c matrix, at trace 1: [n, c, c]."""
    rows = feature.float().flatten(2)
    gram = rows @ rows.transpose(1, 2)
    # The vectors do not depend on the scale, so it needs no gradient.
    trace = gram.detach().diagonal(dim1=1, dim2=2).sum(dim=1)
    gram = gram / trace.clamp(min=1e-30)[:, None, None]
    # A student that diverged is told of by the trainer, not by an algorithm that fails on it.
    return gram.nan_to_num(0.0, 0.0, 0.0)


def aligned(student: Tensor, teacher: Tensor) -> Tensor:
    """For each of the teacher's vectors the student's of the largest |cos|, on the same side.

    `student`: float [n, c, k'], `teacher`: float [n, c, k], both of unit length → [n, c, k].
    """
    cosine = (student.transpose(1, 2) @ teacher).detach()
    best = cosine.abs().argmax(dim=1, keepdim=True)
    chosen = student.gather(2, best.expand(-1, student.shape[1], -1))
    return torch.where(cosine.gather(1, best) < 0, -chosen, chosen)


def _nodes(student: Tensor, teacher: Tensor, vectors: int) -> tuple[Tensor, Tensor]:
    """Both sides' vectors of one tap, [n, c, k] each."""
    if vectors == 1:
        # One value of unit norm is 1, but for a map of nothing but zeros, which has none.
        theirs = first_singular_vector(teacher)
        scale = (theirs != 0).any(dim=1, keepdim=True).to(theirs.dtype)
    else:
        theirs, values = right_singular_vectors(teacher.detach(), vectors)
        scale = F.normalize(values, dim=1)[:, None]
    theirs = torch.where(theirs.sum(dim=1, keepdim=True) < 0, -theirs, theirs)
    mine, _ = right_singular_vectors(student, theirs.shape[2] + _MORE)
    return aligned(mine, theirs) * scale, theirs * scale


def _relation(after: Tensor, before: Tensor) -> Tensor:
    """[n, c, k] and [n, c', k] → [n, c, c', k]."""
    return torch.exp(-(after[:, :, None] - before[:, None]).square() / 8)


class _LeadingEigenvectors(torch.autograd.Function):
    """Eigenvectors of the k largest eigenvalues, with a gradient that near-equal ones leave finite.

    dL/dA = V·(F ∘ VᵀG)·V_kᵀ made symmetric, with F_ij = 1 / (λ_j − λ_i), 0 for i = j. Where two
    eigenvalues coincide their vectors may turn freely, and 1 / 0 says so: two dead channels suffice
    to make it. The original drops what is not finite, and keeps what is merely huge. Here F_ij is
    d / max(d², ε²) of the gap d: exact for gaps of at least ε, never above 1 / ε, and 0 at 0.
    """

    @staticmethod
    def forward(ctx: Any, gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """[n, c, c] → [n, c, count] and eigenvalues [n, count], largest first."""
        values, vectors = torch.linalg.eigh(gram)
        ctx.save_for_backward(values, vectors)
        ctx.set_materialize_grads(True)
        largest = values[:, -count:].flip(1)
        ctx.mark_non_differentiable(largest)
        return vectors[:, :, -count:].flip(2), largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        count = gradient.shape[2]
        leading, largest = vectors[:, :, -count:].flip(2), values[:, -count:].flip(1)
        gaps = largest[:, None] - values[:, :, None]
        weights = gaps / gaps.square().clamp(min=_LEAST_GAP**2)
        inner = weights * (vectors.transpose(1, 2) @ gradient)
        whole = vectors @ inner @ leading.transpose(1, 2)
        return (whole + whole.transpose(1, 2)) / 2, None
