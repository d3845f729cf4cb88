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
        rows = feature.float().flatten(2)
        gram = rows @ rows.transpose(1, 2)
        # The vectors do not depend on the scale, so it needs no gradient.
        trace = gram.detach().diagonal(dim1=1, dim2=2).sum(dim=1)
        gram = gram / trace.clamp(min=1e-30)[:, None, None]
        # A student that diverged is told of by the trainer, not by an algorithm that fails on it.
        gram = gram.nan_to_num(0.0, 0.0, 0.0)
        found, values = _LeadingEigenvectors.apply(gram, min(vectors, *rows.shape[1:]))
    return found, values.clamp(min=0).sqrt()


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
    theirs, values = right_singular_vectors(teacher.detach(), vectors)
    theirs = torch.where(theirs.sum(dim=1, keepdim=True) < 0, -theirs, theirs)
    mine, _ = right_singular_vectors(student, theirs.shape[2] + _MORE)
    scale = F.normalize(values, dim=1)[:, None]
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
