"""The staircase, its alias tables and the brackets of ρ, against mpmath and by enumeration.

Nothing here is random: these tests hold or they do not.
"""

from functools import cache

import mpmath
import numpy as np
import pytest

from privacy.gaussian_blocks import FRACTION, GaussianBlocks, _decay, gaussian_blocks
from privacy.gaussian_ratio import exponential, rounded_gaussian_ratio
from privacy.rounded_gaussian import BLOCK_BITS, BLOCKS, SIGMA_BITS

# (sigma_bits, block_bits, blocks): the served one, and coarse ones with wide brackets.
SERVED = (SIGMA_BITS, BLOCK_BITS, BLOCKS)
COARSE = [(4, 1, 60), (5, 2, 40), (3, 0, 50)]


@cache
def law(n: int, sigma: int, digits: int) -> mpmath.mpf:
    """R(n) = P(round(N(0, σ²)) = n), n ≥ 0; the upper tails keep their digits."""
    with mpmath.workdps(digits):
        half = mpmath.mpf(1) / 2
        return mpmath.ncdf(-(n - half) / sigma) - mpmath.ncdf(-(n + half) / sigma)


def choices(blocks: GaussianBlocks) -> list[int]:
    """How many of the 2³² words choose each block, counted from the alias tables."""
    height = 2 ** (32 - blocks.column_bits)
    counts = [0] * 2**blocks.column_bits
    for column in range(2**blocks.column_bits):
        first, own = column * height, int(blocks.own[column])
        below = max(0, min(own, first + height) - first)
        counts[column] += below
        counts[int(blocks.other[column])] += height - below
    return counts


@pytest.mark.parametrize(
    ("sigma_bits", "n"),
    [(1, 0), (1, 1), (1, 4), (4, 3), (4, 120), (20, 1), (20, 2**20), (20, 40 * 2**20 - 1)],
)
@pytest.mark.parametrize("bits", [1, 31, 64, 320, 1024])
def test_the_ratio_is_bracketed_at_every_precision(sigma_bits: int, n: int, bits: int) -> None:
    low, high = rounded_gaussian_ratio(n, sigma_bits, bits)
    with mpmath.workdps(800):
        exact = law(n, 2**sigma_bits, 800) / law(0, 2**sigma_bits, 800) * mpmath.mpf(2) ** bits
        assert low <= exact <= high
    assert high - low <= 3


@pytest.mark.parametrize(("numerator", "shift"), [(0, 1), (1, 41), (3, 1), (1600 * 2**40, 41)])
def test_the_exponential_is_bracketed(numerator: int, shift: int) -> None:
    low, high = exponential(numerator, shift, 96)
    with mpmath.workdps(400):
        assert low <= mpmath.exp(-mpmath.mpf(numerator) / 2**shift) * 2**96 <= high
    assert high - low <= 3


def test_a_ratio_out_of_range_is_refused() -> None:
    for arguments in ((5, 1, 64), (0, 0, 64), (0, 4, 0)):
        with pytest.raises(ValueError, match="no ratio"):
            rounded_gaussian_ratio(*arguments)


@pytest.mark.parametrize("shape", [SERVED, *COARSE])
def test_the_alias_tables_choose_each_block_exactly_by_its_weight(
    shape: tuple[int, int, int],
) -> None:
    blocks = gaussian_blocks(*shape)
    counted = choices(blocks)
    assert sum(counted) == sum(blocks.weights) == 2**32
    assert counted[: blocks.blocks] == list(blocks.weights)
    assert not any(counted[blocks.blocks :])


@pytest.mark.parametrize("shape", [SERVED, *COARSE])
def test_every_block_brackets_the_acceptance(shape: tuple[int, int, int]) -> None:
    """First, middle and last magnitude of every block (every 20th of the served ones)."""
    sigma_bits, block_bits, count = shape
    blocks = gaussian_blocks(*shape)
    length = 2**block_bits
    chosen = np.arange(0, count, 20 if shape == SERVED else 1, dtype=np.int64)
    for offset in {0, length // 2, length - 1}:
        low, high = blocks.bracket(chosen, np.full_like(chosen, offset))
        with mpmath.workdps(60):
            at_zero = law(0, 2**sigma_bits, 60)
            for j, below, above in zip(chosen.tolist(), low.tolist(), high.tolist(), strict=True):
                height = law(j * length + offset, 2**sigma_bits, 60) / at_zero
                rho = blocks.scale * height / blocks.weights[j]
                assert rho <= 1
                assert below <= rho * 2**FRACTION <= above
                assert int(blocks.sure[j]) <= rho * 2**blocks.prefix_bits
                under, over = blocks.exact_bracket(j * length + offset, 64)
                assert under <= rho * 2**64 <= over <= under + 6
    if shape == SERVED:
        # What the speed rests on: one doubtful trial in a hundred, one exact decision in 2²⁷.
        assert (high - low).max() <= 16
        weights = np.array(blocks.weights, dtype=np.float64) / 2**32
        assert float(weights @ (blocks.sure / 2**blocks.prefix_bits)) > 0.99


@pytest.mark.parametrize("shape", [SERVED, *COARSE])
def test_the_decay_within_a_block_is_bracketed(shape: tuple[int, int, int]) -> None:
    """R(n₀ + u)/R(n₀), where it falls most: in the last blocks, at their ends."""
    sigma_bits, block_bits, count = shape
    terms = gaussian_blocks(*shape)._terms
    length = 2**block_bits
    for j in (0, count // 3, count - 1):
        for u in {0, length // 3, length - 1}:
            block, offset = np.array([j]), np.array([u])
            low, high = _decay(sigma_bits, block_bits, terms, block, offset)
            with mpmath.workdps(400):
                first, there = (law(j * length + v, 2**sigma_bits, 400) for v in (0, u))
                assert int(low[0]) <= there / first * 2**FRACTION <= int(high[0])


@pytest.mark.parametrize("shape", COARSE)
def test_the_law_of_the_sampler_is_the_rounded_gaussian(shape: tuple[int, int, int]) -> None:
    """The probability of every output, from tables and acceptance, to 2⁻¹⁰⁰⁰.

    A trial gives ±n with P(block)·2^−w·½·ρ(n), a negative zero being rejected.
    """
    sigma_bits, block_bits, count = shape
    blocks = gaussian_blocks(*shape)
    chosen = choices(blocks)
    reach = count << block_bits
    with mpmath.workdps(400):
        kept = []
        for n in range(reach):
            low, high = blocks.exact_bracket(n, 1100)
            assert high - low <= 6
            kept.append(mpmath.mpf(chosen[n >> block_bits]) * low / mpmath.mpf(2) ** 1100)
        total = kept[0] + 2 * sum(kept[1:])
        exact = [law(n, 2**sigma_bits, 400) for n in range(reach)]
        inside = exact[0] + 2 * sum(exact[1:])
        apart = [abs(k / total - r / inside) for k, r in zip(kept, exact, strict=True)]
        assert apart[0] + 2 * sum(apart[1:]) < mpmath.mpf(2) ** -1000
        # Against R itself the total variation is the mass beyond the reach.
        beyond = 2 * mpmath.ncdf(-(reach - mpmath.mpf(1) / 2) / 2**sigma_bits)
        variation = sum(abs(k / total - r) for k, r in zip(kept[1:], exact[1:], strict=True))
        assert 2 * variation + abs(kept[0] / total - exact[0]) + beyond <= 2 * beyond * 1.0001


def test_the_served_staircase_reaches_forty_sigma() -> None:
    blocks = gaussian_blocks(*SERVED)
    reach = blocks.blocks << blocks.block_bits
    assert reach == 40 << blocks.sigma_bits
    with mpmath.workdps(50):
        beyond = 2 * mpmath.ncdf(-(reach - mpmath.mpf(1) / 2) / 2**blocks.sigma_bits)
        assert -1160 < mpmath.log(beyond, 2) < -1159
    assert min(blocks.weights) >= 1


@pytest.mark.parametrize(
    "shape", [(0, 0, 4), (21, 13, 5120), (4, 0, 300), (4, 3, 30), (20, 16, 640), (4, 1, 1)]
)
def test_a_staircase_that_the_proof_does_not_cover_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"blocks|sigma_bits|fit 32"):
        gaussian_blocks(*shape)
