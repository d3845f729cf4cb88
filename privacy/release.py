"""The release of one tap: bound → quantise → integer sum → integer noise → mean.

Everything before the noise is private and stays inside `release`; everything after it is
post-processing. The release settings are public and fixed when the service starts; a client chooses
samples, which of the published taps it wants of them, and nothing else.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from privacy import canonical_json
from privacy.accounting import MAX_RADIUS, SIGMA, Kind, charge_units
from privacy.bounding import bound, finite_rows
from privacy.noise import NoiseSource
from privacy.quantising import quantise

_BLOCK: Final = 32768
"""Values that are bounded and quantised at once: their float64 stays in the processor's cache."""


@dataclass(frozen=True)
class TapRelease:
    """The public numbers under which one tap is released.

    name: of the tap, unique within a teacher.
    kind: see `privacy.accounting.Kind`.
    dimension: m, the number of values of one answer.
    bound: B, the L2 bound of one teacher's vector in real units; 1 for probabilities; 0 when free.
    radius: R, the same bound in grid steps; 0 when free.
    teachers: k, the public divisor of the mean.

    A *free* tap (`free`) is released without bound, noise or charge. It is sound only where the
    teacher itself is differentially private in its weights (mode `dp-sgd`).
    """

    name: str
    kind: Kind
    dimension: int
    bound: float
    radius: int
    teachers: int

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a tap needs a name")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {get_args(Kind)}, not {self.kind!r}")
        if self.dimension < 1 or self.teachers < 1:
            raise ValueError("dimension and teachers must be at least 1")
        if not 0 <= self.radius <= MAX_RADIUS:
            raise ValueError(f"radius must lie in [0, {MAX_RADIUS}], not {self.radius}")
        if self.is_free:
            if self.bound != 0.0 or self.teachers != 1:
                raise ValueError("a free tap has one teacher and no bound; use TapRelease.free")
        elif not (math.isfinite(self.bound) and self.bound > 0.0):
            raise ValueError(f"bound must be finite and above 0, not {self.bound}")
        elif self.kind == "probabilities" and self.bound != 1.0:
            raise ValueError(f"probabilities are bounded by 1, not {self.bound}")

    @classmethod
    def free(cls, name: str, kind: Kind, dimension: int) -> "TapRelease":
        """A tap of a `dp-sgd` teacher: post-processing of its weights, charge 0."""
        return cls(name, kind, dimension, bound=0.0, radius=0, teachers=1)

    @property
    def is_free(self) -> bool:
        """True where nothing is added and nothing charged."""
        return self.radius == 0

    @property
    def charge(self) -> int:
        """Units of μ²·2⁴⁰ that one answer costs."""
        return charge_units(self.kind, self.radius)

    @property
    def draws(self) -> int:
        """Noise draws that one answer consumes."""
        return 0 if self.is_free else self.dimension

    @property
    def noise_sd(self) -> float:
        """Standard deviation of the noise on each value of the mean, in real units: σ·B/(R·k)."""
        if self.is_free:
            return 0.0
        return SIGMA * self.bound / (self.radius * self.teachers)

    def settings_bytes(self) -> bytes:
        """Canonical bytes of every setting, σ included: part of a stored answer's key."""
        return canonical_json.encode(asdict(self) | {"sigma": SIGMA})

    def to_json(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return asdict(self)


def release(
    tap: TapRelease, per_teacher: npt.ArrayLike, noise: NoiseSource | None
) -> npt.NDArray[np.float32]:
    """The noisy mean of k teachers' answers to n samples.

    per_teacher: float [k, n, m], or [k, n, ...] with m values after the first two axes; aligned
        and reduced, not yet bounded. A row with a non-finite entry counts as the zero row.
    noise: may be None for a free tap only.

    Returns float32 [n, m] (or [n, ...]): (Σ q + noise)·B/(R·k), or for a free tap the teacher's
    own finite rows. Raises ValueError on a wrong shape, which depends on public settings only.
    """
    rows, shape = _rows(tap, per_teacher)
    if tap.is_free:
        # Twice: a finite float64 may overflow in the cast.
        with np.errstate(all="ignore"):
            single = finite_rows(rows[0]).astype(np.float32)
        return finite_rows(single).astype(np.float32).reshape(shape)
    if noise is None:
        raise ValueError(f"tap {tap.name!r} is not free and needs a noise source")
    return perturb(tap, _aggregate(tap, rows), noise).reshape(shape)


def aggregate(tap: TapRelease, per_teacher: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The exact sum Σ q that `release` perturbs: int64 [n, m]. Private: it carries no noise yet.

    per_teacher: as for `release`, of a tap that is not free.
    """
    return _aggregate(tap, _rows(tap, per_teacher)[0])


def perturb(
    tap: TapRelease, total: npt.NDArray[np.int64], noise: NoiseSource
) -> npt.NDArray[np.float32]:
    """(total + noise)·B/(R·k): float32, of the shape of `total` int64 [n, m]."""
    drawn = noise.sample(total.size)
    if drawn.dtype != np.int64 or drawn.shape != (total.size,):
        raise TypeError("a noise source returns int64 [count]")
    noisy = total + drawn.reshape(total.shape)
    step = tap.bound / (tap.radius * tap.teachers)
    mean: npt.NDArray[np.float32] = (noisy * step).astype(np.float32)
    return mean


def _aggregate(tap: TapRelease, rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    samples, dimension = rows.shape[1:]
    total = np.empty((samples, dimension), dtype=np.int64)
    width = max(1, _BLOCK // (len(rows) * dimension))
    for first in range(0, samples, width):
        block = rows[:, first : first + width]
        bounded = bound(block, tap.kind, tap.bound)
        steps = quantise(bounded, tap.kind, tap.bound, tap.radius)
        steps.sum(axis=0, dtype=np.int64, out=total[first : first + width])
    return total


def _rows(tap: TapRelease, per_teacher: npt.ArrayLike) -> tuple[npt.NDArray[Any], tuple[int, ...]]:
    """[k, n, m] of `per_teacher`, and the shape [n, ...] of what is released of it."""
    values = np.asarray(per_teacher)
    if values.ndim < 3 or values.shape[0] != tap.teachers:
        raise ValueError(f"expected [{tap.teachers}, n, {tap.dimension}], got {values.shape}")
    samples, trailing = values.shape[1], values.shape[2:]
    if math.prod(trailing) != tap.dimension:
        raise ValueError(f"expected {tap.dimension} values a sample, got {trailing}")
    return values.reshape(tap.teachers, samples, tap.dimension), (samples, *trailing)
