"""Bringing the hints of k teachers into one common frame, so that their mean means something.

(Hints, and all other vectors of features whose coordinates no two teachers share: FSP's products.)

Two networks trained apart have hidden features that differ by more than noise: what one keeps in
its first unit, another spreads over ten. Each teacher is therefore mapped to the features of one
*public* reference network, on *public* samples, by the classical orthogonal Procrustes problem
with a scale (Schönemann 1966; Gower & Dijksterhuis 2004, §4.2), and then to the reference's
principal directions, which are the same for all:

    a(f) = s · (f − c) Q V,    c = mean of the teacher's features on the public samples,
    Q = U Wᵀ from the singular value decomposition U Σ Wᵀ of F̄ᵀ R̄,    s = ‖R̄‖ / ‖F̄‖,

F̄ and R̄ [n, d] the centred features of teacher and reference, V [d, m] the first m right singular
vectors of R̄. The map of teacher i is a function of teacher i and of public data, and of nothing
else: the promise's locality. The scale lets a bound B that was found on the reference fit all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Alignment:
    """k affine maps from d features to m: (features - centre) @ matrix."""

    centre: Tensor
    """float32 [k, d]."""
    matrix: Tensor
    """float32 [k, d, m]: scale, rotation and projection in one. Zero for a teacher whose features
    are not finite."""

    @property
    def dimensions(self) -> int:
        """m."""
        return int(self.matrix.shape[-1])

    def __call__(self, features: Tensor, teachers: slice = slice(None)) -> Tensor:
        """float32 [k', n, d] of the teachers in the slice → [k', n, m], in float32."""
        matrix = self.matrix[teachers]
        return torch.bmm(features.float() - self.centre[teachers, None], matrix)

    def to(self, device: torch.device) -> "Alignment":
        """The same on another device."""
        return Alignment(self.centre.to(device), self.matrix.to(device))

    @classmethod
    def stack(cls, parts: Sequence["Alignment"]) -> "Alignment":
        """The alignments of several groups of teachers, in order, as one."""
        return cls(
            torch.cat([part.centre for part in parts]), torch.cat([part.matrix for part in parts])
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """The common frame: centred features of the reference and its principal directions."""

    reference: Tensor
    """float64 [n, d]: R̄, of the public samples that every teacher is aligned on, in their order."""
    directions: Tensor
    """float64 [d, m]: V."""

    @classmethod
    def of(cls, features: Tensor, dimensions: int | None, *, turned: bool = True) -> "Frame":
        """`features` [n, d] of the public reference; all d directions when None.

        Not `turned`: V is the identity, and the frame keeps the reference's own coordinates, as for
        a TSL, whose channels a student imitates one by one.
        Raises ValueError when the features are not finite or there are fewer than two samples.
        """
        reference = features.detach().double().cpu()
        if len(reference) < 2 or not bool(reference.isfinite().all()):
            raise ValueError("the reference needs finite features of at least two public samples")
        reference = reference - reference.mean(dim=0)
        if not turned:
            return cls(reference, torch.eye(reference.shape[1], dtype=reference.dtype))
        # The Gram matrix: V is wanted whole even where n < d.
        _, vectors = torch.linalg.eigh(reference.T @ reference)
        directions = vectors.flip(1)[:, : dimensions or reference.shape[1]]
        return cls(reference, directions)

    @property
    def reduced(self) -> Tensor:
        """float32 [n, m]: what the reference itself says of the public samples in this frame."""
        return (self.reference @ self.directions).float()

    def align(self, features: Tensor) -> Alignment:
        """Alignment of k teachers by their features [k, n, d] of the frame's public samples.

        One teacher at a time, so that none has a say in another's map.
        """
        if features.shape[1:] != self.reference.shape:
            raise ValueError(
                f"features {tuple(features.shape)} do not fit the frame's "
                f"{tuple(self.reference.shape)}"
            )
        return Alignment.stack([self._align_one(teacher) for teacher in features])

    def _align_one(self, features: Tensor) -> Alignment:
        values = features.detach().double().cpu()
        dimensions = self.directions.shape[1]
        nothing = Alignment(
            torch.zeros(1, values.shape[1]), torch.zeros(1, values.shape[1], dimensions)
        )
        if not bool(values.isfinite().all()):
            return nothing
        centre = values.mean(dim=0)
        centred = values - centre
        norm = float(torch.linalg.matrix_norm(centred))
        if not 0 < norm < float("inf"):
            return nothing
        # Unit norm first: the features of a teacher that ran away may be as large as 1e38.
        try:
            left, _, right = torch.linalg.svd((centred / norm).T @ self.reference)
        except RuntimeError:  # torch.linalg's own error: no convergence
            return nothing
        scale = torch.linalg.matrix_norm(self.reference) / norm
        matrix = scale * (left @ right @ self.directions)
        return Alignment(centre.float()[None], matrix.float()[None])
