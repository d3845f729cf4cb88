"""The half line cut into blocks under a staircase that covers the rounded Gaussian.

All in integers. Block j holds the magnitudes n₀ = j·2^w ≤ n < (j + 1)·2^w. Its step has the weight
W_j ≥ s·R(n₀)/R(0), so that

    ρ(n) = s·R(n) / (R(0)·W_j) ≤ 1

is the probability with which a magnitude, uniform in a block that was chosen by weight, is to be
kept. The weights are integers that sum to 2³²: the choice is exact, and only ρ is a real number.
Here it is bracketed in 31 bits; proofs in docs/privacy/noise.md.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import factorial

import numpy as np
import numpy.typing as npt

from privacy.gaussian_ratio import exponential, rounded_gaussian_ratio

Integers = npt.NDArray[np.int64]

FRACTION = 31
"""Bits of the fixed-point numbers that bracket ρ."""

_ONE = 2**FRACTION
_CHOICE = 32
_FINE = 96
_DECAY_ERROR = 5


@dataclass(frozen=True)
class GaussianBlocks:
    """The staircase of round(N(0, 2^(2·sigma_bits))) on |x| < blocks·2^block_bits.

    weights: int [blocks], sum 2³².
    own, other: alias tables (Walker 1977) for a uniform 32-bit word: the upper `column_bits` bits
        are a column; below own[column] its block is the column itself, from there other[column].
    sure: per block, the multiple of 2^−prefix_bits under which ρ never falls.
    """

    sigma_bits: int
    block_bits: int
    blocks: int
    scale: int
    weights: tuple[int, ...]
    column_bits: int
    own: npt.NDArray[np.uint32]
    other: npt.NDArray[np.uint32]
    sure: npt.NDArray[np.uint32]
    _terms: int
    _start: tuple[Integers, Integers]

    @property
    def prefix_bits(self) -> int:
        """Bits that a 32-bit word has left beside a sign and an offset within a block."""
        return 31 - self.block_bits

    def bracket(self, block: Integers, offset: Integers) -> tuple[Integers, Integers]:
        """(low, high), int64 [m] each, with low ≤ 2³¹·ρ ≤ high at the offsets in the blocks."""
        low, high = _decay(self.sigma_bits, self.block_bits, self._terms, block, offset)
        start_low, start_high = self._start
        return (
            (start_low.take(block) * low) >> FRACTION,
            ((start_high.take(block) * high) >> FRACTION) + 1,
        )

    def exact_bracket(self, magnitude: int, bits: int) -> tuple[int, int]:
        """(low, high) with low ≤ 2^bits·ρ(magnitude) ≤ high, at most 6 apart."""
        weight = self.weights[magnitude >> self.block_bits]
        # s/W_j is under 2³², which widens the ratio's bracket.
        low, high = rounded_gaussian_ratio(magnitude, self.sigma_bits, bits + _CHOICE)
        return (self.scale * low // weight) >> _CHOICE, (
            (self.scale * high // weight) >> _CHOICE
        ) + 1


@lru_cache(maxsize=4)
def gaussian_blocks(sigma_bits: int, block_bits: int, blocks: int) -> GaussianBlocks:
    """The tables; a few hundredths of a second at σ = 2²⁰, once per process.

    Raises ValueError unless ρ falls by less than a factor e within each block, and words suffice.
    """
    reach = blocks << block_bits
    length = 1 << block_bits
    if not (1 <= sigma_bits <= 20 and block_bits >= 0 and 2 <= blocks <= 2**16):
        raise ValueError("sigma_bits lies in [1, 20], block_bits is at least 0, blocks at least 2")
    if reach > 4**sigma_bits or (length - 1) * (2 * reach - length - 1) >= 2 * 4**sigma_bits:
        raise ValueError(f"blocks of 2^{block_bits} are too long for a reach of {reach}")
    if reach > 2**30 or block_bits > 15:
        raise ValueError("a sign, an offset and a block must fit 32 bits")
    heights = [_height(block << block_bits, sigma_bits) for block in range(blocks)]
    # Rounding up adds less than one to each weight; what is then missing goes to the first block.
    scale = ((2**_CHOICE - blocks) << _FINE) // sum(high for _, high in heights)
    weights = [-(-scale * high >> _FINE) for _, high in heights]
    weights[0] += 2**_CHOICE - sum(weights)
    column_bits = (blocks - 1).bit_length()
    own, other = _alias(weights, column_bits)
    pairs = list(zip(heights, weights, strict=True))
    start_low = [(scale * low << FRACTION) // (weight << _FINE) for (low, _), weight in pairs]
    start_high = [
        min(_ONE, (scale * high << FRACTION) // (weight << _FINE) + 1)
        for (_, high), weight in pairs
    ]
    start = (np.array(start_low, dtype=np.int64), np.array(start_high, dtype=np.int64))
    every = np.arange(blocks, dtype=np.int64)
    terms = _terms((length - 1) * (2 * reach - length - 1), 2 * 4**sigma_bits)
    end_low, _ = _decay(sigma_bits, block_bits, terms, every, np.full_like(every, length - 1))
    sure = ((start[0] * end_low) >> FRACTION) >> block_bits
    return GaussianBlocks(
        sigma_bits=sigma_bits,
        block_bits=block_bits,
        blocks=blocks,
        scale=scale,
        weights=tuple(weights),
        column_bits=column_bits,
        own=own,
        other=other,
        sure=sure.astype(np.uint32),
        _terms=terms,
        _start=start,
    )


def _height(n: int, sigma_bits: int) -> tuple[int, int]:
    """(low, high) around 2⁹⁶·R(n)/R(0): e^{−D} ≤ R(n)/R(0) ≤ e^{−D}·(1 + n²/(4σ⁴)), D = n²/2σ²."""
    if n * n > 70 << (2 * sigma_bits + 1):
        return 0, 1
    low, high = exponential(n * n, 2 * sigma_bits + 1, _FINE)
    return low, high + (high * n * n >> (4 * sigma_bits + 2)) + 1


def _terms(numerator: int, denominator: int) -> int:
    """The degree K at which Taylor's rest x^{K+1}/(K+1)! is under 2⁻³¹; x = the quotient < 1."""
    degree = 1
    while numerator ** (degree + 1) * _ONE > denominator ** (degree + 1) * factorial(degree + 1):
        degree += 1
    return degree


def _decay(
    sigma_bits: int, block_bits: int, terms: int, block: Integers, offset: Integers
) -> tuple[Integers, Integers]:
    """(low, high) around 2³¹·R(n₀ + u)/R(n₀), which lies in [e^{−x}, e^{−x} + x/(4σ²)].

    x = (2·n₀·u + u²)/(2σ²) < 1. Horner's scheme for Taylor's polynomial of e^{−x}.
    """
    distance = offset * ((block << (block_bits + 1)) + offset)
    shift = FRACTION - 1 - 2 * sigma_bits
    x = distance << shift if shift >= 0 else distance >> -shift
    value = np.full_like(x, _ONE)
    for k in range(terms, 0, -1):
        value = _ONE - ((x * value) >> FRACTION) // k
    growth = max(1, _ONE >> (2 * sigma_bits + 2))
    return np.maximum(value - _DECAY_ERROR, 0), np.minimum(value + _DECAY_ERROR + growth, _ONE)


def _alias(
    weights: list[int], column_bits: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """(own, other): columns of equal height, each filled by at most two blocks."""
    columns = 2**column_bits
    height = 2 ** (_CHOICE - column_bits)
    left = weights + [0] * (columns - len(weights))
    own = np.zeros(columns, dtype=np.uint32)
    other = np.arange(columns, dtype=np.uint32)
    poor = [column for column, weight in enumerate(left) if weight < height]
    rich = [column for column, weight in enumerate(left) if weight >= height]
    while poor:
        column, donor = poor.pop(), rich[-1]
        own[column] = column * height + left[column]
        other[column] = donor
        left[donor] -= height - left[column]
        if left[donor] < height:
            poor.append(rich.pop())
    # Whoever is left fills a column exactly: all of it is "other", which is the column itself.
    return own, other
