"""The rounded Gaussian round(N(0, σ²)), σ = 2²⁰, sampled exactly, by vectors of integers.

A trial takes 64 secret bits: they choose a block under a staircase (gaussian_blocks.py), an offset
in it, a sign, and the first bits of a uniform V. The magnitude n is kept when V < ρ(n). The block's
lower bound on ρ settles 99 of 100 trials at once, a bracket of ρ in 31 bits nearly all others, and
exact arithmetic the rest, with as many further bits of V as it takes. No float occurs anywhere.

The law is R(x) = P(round(N(0, σ²)) = x), conditioned on |x| < 40σ: η = 0, and τ is the mass beyond.
Proof: docs/privacy/noise.md.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from privacy.gaussian_blocks import FRACTION, GaussianBlocks, Integers, gaussian_blocks
from privacy.secret_stream import SecretStream

SIGMA_BITS = 20
BLOCK_BITS = 13
BLOCKS = 5120
"""40σ / 2¹³."""

_LANES = 2**15
"""Trials at once: numpy's cost per call spreads over many, and the words stay in the cache."""

_WORD = 64
_ONE = np.uint32(1)


class WordStream(Protocol):
    """A source of uniform bits; each is handed out once."""

    def fill(self, out: npt.NDArray[np.unsignedinteger]) -> None:
        """Overwrite `out` with uniform bits."""


def rounded_gaussian() -> "BlockSampler":
    """A sampler of round(N(0, 2⁴⁰)) on |x| < 40σ with a secret stream of its own."""
    return BlockSampler(gaussian_blocks(SIGMA_BITS, BLOCK_BITS, BLOCKS), SecretStream())


class BlockSampler:
    """Rejection under the staircase `blocks`, with the bits of `stream`. Thread-safe if that is."""

    def __init__(self, blocks: GaussianBlocks, stream: WordStream) -> None:
        self._blocks = blocks
        self._stream = stream
        self._column_shift = np.uint32(32 - blocks.column_bits)
        self._code_bits = np.uint32(blocks.block_bits + 1)
        self._code_mask = np.uint32(2 ** (blocks.block_bits + 1) - 1)

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        """`count` independent draws: int64 [count]. Raises ValueError for a negative count."""
        if count < 0:
            raise ValueError(f"count must be at least 0, not {count}")
        out = np.empty(count, dtype=np.int64)
        for start in range(0, count, _LANES):
            lanes = out[start : start + _LANES]
            values, rejected = self._trials(lanes.size)
            lanes[:] = values
            while rejected.size:
                values, again = self._trials(rejected.size)
                lanes[rejected] = values
                rejected = rejected[again]
        return out

    def _trials(self, count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
        """(values int32 [count], positions of those that must be drawn again)."""
        blocks = self._blocks
        words = np.empty(2 * count, dtype=np.uint32)
        self._stream.fill(words)
        choice, detail = words[:count], words[count:]
        column = choice >> self._column_shift
        block = np.where(choice < blocks.own.take(column), column, blocks.other.take(column))
        prefix = detail >> self._code_bits
        # The magnitude above the sign's bit: code 1 is a zero with a minus sign, which would count
        # zero twice.
        code = (block << self._code_bits) | (detail & self._code_mask)
        kept = (prefix < blocks.sure.take(block)) & (code != 1)
        magnitude = (code >> _ONE).view(np.int32)
        minus = (code & _ONE).view(np.int32)
        values = (magnitude ^ -minus) + minus
        doubtful = np.flatnonzero(~kept)
        accepted = self._decide(magnitude[doubtful], prefix[doubtful])
        rejected = doubtful[~accepted | (code[doubtful] == 1)]
        words.fill(0)
        return values, rejected

    def _decide(
        self, magnitude: npt.NDArray[np.int32], prefix: npt.NDArray[np.uint32]
    ) -> npt.NDArray[np.bool_]:
        """Whether V < ρ(magnitude), V being uniform with the first bits `prefix`: bool [m]."""
        blocks = self._blocks
        n = magnitude.astype(np.int64)
        low, high = blocks.bracket(n >> blocks.block_bits, n & ((1 << blocks.block_bits) - 1))
        more = np.empty(n.size, dtype=np.uint64)
        self._stream.fill(more)
        shift = np.uint64(_WORD - blocks.prefix_bits)
        more >>= np.uint64(blocks.prefix_bits)
        uniform = (prefix.astype(np.uint64) << shift) | more
        first: Integers = (uniform >> np.uint64(_WORD - FRACTION)).astype(np.int64)
        accepted: npt.NDArray[np.bool_] = first < low
        for lane in np.flatnonzero((first >= low) & (first < high)):
            accepted[lane] = self._decide_exactly(int(n[lane]), int(uniform[lane]))
        uniform.fill(0)
        return accepted

    def _decide_exactly(self, magnitude: int, uniform: int) -> bool:
        """Whether V < ρ(magnitude), V being uniform with the first 64 bits `uniform`."""
        bits = _WORD
        more = np.empty(1, dtype=np.uint64)
        while True:
            low, high = self._blocks.exact_bracket(magnitude, bits)
            # V lies in [uniform, uniform + 1)/2^bits.
            if uniform < low:
                return True
            if uniform >= high:
                return False
            self._stream.fill(more)
            uniform = uniform << _WORD | int(more[0])
            bits += _WORD
