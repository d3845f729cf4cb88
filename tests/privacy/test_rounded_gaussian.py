"""The sampler: its draws, its fallbacks, and that no float carries them.

Statistical tests reject at α = 1e-8 each; together they fail by chance less than once in a million
runs.
"""

import ast
import inspect
import itertools
import math
import random
import sys
from types import FrameType, ModuleType
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from privacy import gaussian_blocks as blocks_module
from privacy import gaussian_ratio, noise, noise_reservoir, rounded_gaussian, secret_stream
from privacy.accounting import SIGMA
from privacy.gaussian_blocks import GaussianBlocks, gaussian_blocks
from privacy.noise import DiscreteGaussian, RoundedGaussian
from privacy.rounded_gaussian import BLOCK_BITS, BLOCKS, SIGMA_BITS, BlockSampler
from privacy.secret_stream import SecretStream

ALPHA = 1e-8


class Script:
    """A stream that hands out the words it is told, and knows how many are left."""

    def __init__(self, words: list[int]) -> None:
        self.words = list(words)

    def fill(self, out: npt.NDArray[np.unsignedinteger]) -> None:
        out[:], self.words = self.words[: out.size], self.words[out.size :]


class CountingSampler(BlockSampler):
    """Counts the trials that exact arithmetic decides."""

    exactly = 0

    def _decide_exactly(self, magnitude: int, uniform: int) -> bool:
        self.exactly += 1
        return super()._decide_exactly(magnitude, uniform)


@pytest.fixture(scope="module")
def served() -> GaussianBlocks:
    return gaussian_blocks(SIGMA_BITS, BLOCK_BITS, BLOCKS)


@pytest.fixture(scope="module")
def draws() -> npt.NDArray[np.int64]:
    return RoundedGaussian().sample(4_000_000)


def choice(blocks: GaussianBlocks, block: int) -> int:
    """A 32-bit word that chooses `block`."""
    shift = 32 - blocks.column_bits
    if int(blocks.own[block]) > block << shift:
        return block << shift
    column = int(np.flatnonzero(blocks.other == block)[0])
    return ((column + 1) << shift) - 1


def lane(blocks: GaussianBlocks, value: int, uniform: int, minus: bool = False) -> list[int]:
    """The two words of a trial of `value` whose V begins with the 64 bits `uniform`."""
    magnitude = abs(value)
    offset = magnitude & (2**blocks.block_bits - 1)
    low = offset << 1 | int(minus or value < 0)
    prefix = uniform >> (64 - blocks.prefix_bits)
    return [choice(blocks, magnitude >> blocks.block_bits), prefix << blocks.block_bits + 1 | low]


def rest(blocks: GaussianBlocks, uniform: int) -> int:
    """The word that completes V's first 64 bits after the trial's own."""
    return (uniform << blocks.prefix_bits) % 2**64


def rho(blocks: GaussianBlocks, magnitude: int) -> mpmath.mpf:
    """The acceptance of a magnitude, from normal tails at 200 digits."""
    with mpmath.workdps(200):
        sigma, half = mpmath.mpf(2) ** blocks.sigma_bits, mpmath.mpf(1) / 2
        tail = [mpmath.ncdf(-(x - half) / sigma) for x in (magnitude, magnitude + 1, 0, 1)]
        weight = blocks.weights[magnitude >> blocks.block_bits]
        return blocks.scale * (tail[0] - tail[1]) / (tail[2] - tail[3]) / weight


# Fallbacks, forced.


@pytest.mark.parametrize("shape", [(SIGMA_BITS, BLOCK_BITS, BLOCKS), (4, 1, 60)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_bits_of_v_that_agree_with_rho_are_decided_exactly(
    shape: tuple[int, int, int], depth: int
) -> None:
    """V agrees with ρ in its first 64·depth bits, then lies just under or over it.

    The script must be used up word by word: the sampler asks for exactly the bits that it needs.
    """
    blocks = gaussian_blocks(*shape)
    for magnitude in (1, 2, 2**blocks.sigma_bits, 3 * 2**blocks.sigma_bits + 1):
        with mpmath.workdps(200):
            bits = int(mpmath.floor(rho(blocks, magnitude) * mpmath.mpf(2) ** (64 * (depth + 1))))
        words = [bits >> 64 * place & 2**64 - 1 for place in range(depth, -1, -1)]
        for step, value in ((-9, magnitude), (9, -magnitude)):
            # Nine units of the last word: further than the bracket is wide there.
            nudged = (*words[1:-1], max(0, min(2**64 - 1, words[-1] + step)))
            if nudged[-1] in (0, 2**64 - 1):
                continue
            again = lane(blocks, 0, 0)
            script = Script(
                [*lane(blocks, value, words[0]), rest(blocks, words[0]), *nudged, *again]
            )
            drawn = BlockSampler(blocks, script).sample(1).tolist()
            if step < 0:
                assert (drawn, script.words) == ([value], again)
            else:
                assert (drawn, script.words) == ([0], [])


def test_a_trial_outside_the_bracket_takes_one_more_word(served: GaussianBlocks) -> None:
    """Not settled by the block's bound, settled by the bracket: no exact arithmetic."""
    magnitude = SIGMA + 8191
    low, high = served.exact_bracket(magnitude, 64)
    unit = 2**33  # of the 31-bit bracket; it is at most 16 wide
    for uniform, kept in ((low - 20 * unit, True), (high + 20 * unit, False)):
        assert uniform >> (64 - served.prefix_bits) >= served.sure[magnitude >> BLOCK_BITS]
        again = lane(served, -5, 0)
        script = Script([*lane(served, magnitude, uniform), rest(served, uniform), *again])
        drawn = BlockSampler(served, script).sample(1).tolist()
        assert (drawn, script.words) == (([magnitude], again) if kept else ([-5], []))


def test_a_trial_under_the_bound_takes_no_more_word(served: GaussianBlocks) -> None:
    for value in (0, 1, -1, 8191, -8192, 2**20, -(2**22) - 1):
        top = int(served.sure[abs(value) >> BLOCK_BITS]) - 1
        script = Script(lane(served, value, top << (64 - served.prefix_bits)))
        assert BlockSampler(served, script).sample(1).tolist() == [value]
        assert script.words == []


def test_zero_is_not_counted_twice(served: GaussianBlocks) -> None:
    script = Script([*lane(served, 0, 0, minus=True), 0, *lane(served, 7, 0)])
    assert BlockSampler(served, script).sample(1).tolist() == [7]


def test_the_edge_of_a_column_falls_to_its_other_block(served: GaussianBlocks) -> None:
    shift = 32 - served.column_bits
    columns = [
        c for c in range(0, BLOCKS, 97) if c << shift < int(served.own[c]) < (c + 1) << shift
    ]
    assert len(columns) > 5
    for column in columns:
        edge = int(served.own[column])
        for word, block in ((edge - 1, column), (edge, int(served.other[column]))):
            if served.sure[block]:
                drawn = BlockSampler(served, Script([word, 2])).sample(1)
                assert drawn.tolist() == [(block << BLOCK_BITS) + 1]


# The law.


@pytest.mark.parametrize("shape", [(4, 1, 60), (5, 2, 40), (3, 0, 50)])
def test_coarse_draws_follow_the_exact_law_integer_by_integer(shape: tuple[int, int, int]) -> None:
    """At σ of 8 to 32 the brackets are wide, so that exact arithmetic decides many."""
    sigma, count = 2 ** shape[0], 300_000
    sampler = CountingSampler(gaussian_blocks(*shape), SecretStream())
    values = sampler.sample(count)
    assert sampler.exactly > 20
    edge = int(3.2 * sigma)
    edges = (np.arange(-edge, edge + 2) - 0.5) / sigma
    expected = count * np.diff(np.concatenate([[0.0], stats.norm.cdf(edges), [1.0]]))
    clipped = np.clip(values, -edge - 1, edge + 1) + edge + 1
    observed = np.bincount(clipped, minlength=2 * edge + 3)
    assert expected.min() > 20
    assert stats.chisquare(observed, expected).pvalue > ALPHA
    zeros = int((values == 0).sum())
    assert stats.binomtest(zeros, count, math.erf(0.5 / sigma / 2**0.5)).pvalue > ALPHA
    assert stats.binomtest(int((values > 0).sum()), count - zeros).pvalue > ALPHA


def test_draws_follow_the_normal_law(draws: npt.NDArray[np.int64]) -> None:
    """χ² over 512 bins, Kolmogorov-Smirnov (σ = 2²⁰ is far below its resolution), variance."""
    assert draws.dtype == np.int64
    edges = np.round(stats.norm.ppf(np.linspace(0.0, 1.0, 513)[1:-1]) * SIGMA).astype(np.int64)
    below = np.concatenate([[0.0], stats.norm.cdf((edges - 0.5) / SIGMA), [1.0]])
    observed = np.bincount(np.searchsorted(edges, draws, side="right"), minlength=512)
    assert stats.chisquare(observed, len(draws) * np.diff(below)).pvalue > ALPHA
    assert stats.kstest(draws[:1_000_000] / SIGMA, "norm").pvalue > ALPHA
    scaled = float(((draws / SIGMA) ** 2).sum())
    assert min(stats.chi2.cdf(scaled, len(draws)), stats.chi2.sf(scaled, len(draws))) > ALPHA / 2
    assert abs(float((draws / SIGMA).mean())) < 6.0 / math.sqrt(len(draws))


def test_each_block_has_its_share(draws: npt.NDArray[np.int64]) -> None:
    """χ² over the sampler's own blocks, signs apart, and over halves of blocks."""
    length, edge = 2**BLOCK_BITS, 3 * 2 ** (SIGMA_BITS - BLOCK_BITS)
    half = length // 2
    edges = (np.arange(-2 * edge, 2 * edge + 1) * half - 0.5) / SIGMA
    expected = len(draws) * np.diff(np.concatenate([[0.0], stats.norm.cdf(edges), [1.0]]))
    cells = np.clip(np.floor_divide(draws, half), -2 * edge - 1, 2 * edge) + 2 * edge + 1
    observed = np.bincount(cells, minlength=expected.size)
    assert expected.min() > 50
    assert stats.chisquare(observed, expected).pvalue > ALPHA


@pytest.mark.parametrize("reach", [3, 4, 5])
def test_tails_hold_what_they_should(draws: npt.NDArray[np.int64], reach: int) -> None:
    beyond = int((np.abs(draws) >= reach * SIGMA).sum())
    share = math.erfc((reach - 0.5 / SIGMA) / math.sqrt(2.0))
    assert stats.binomtest(beyond, len(draws), share).pvalue > ALPHA
    assert np.abs(draws).max() < 8 * SIGMA  # P < 5e-9


def test_every_low_bit_is_uniform(draws: npt.NDArray[np.int64]) -> None:
    """A float with 24 or fewer bits would leave gaps: all residues modulo 2¹³ occur, equally."""
    for bits in (1, 4, 8, 13):
        counts = np.bincount(draws % 2**bits, minlength=2**bits)
        assert counts.min() > 0
        assert stats.chisquare(counts).pvalue > ALPHA
    large = draws[np.abs(draws) > 2 * SIGMA]
    assert stats.chisquare(np.bincount(large % 64, minlength=64)).pvalue > ALPHA


def test_neighbouring_draws_are_uncorrelated(draws: npt.NDArray[np.int64]) -> None:
    z = draws[:1_000_000] / SIGMA
    for lag in (1, 2, 10, 2**15):
        for a, b in ((z[:-lag], z[lag:]), (z[:-lag] ** 2 - 1, (z[lag:] ** 2 - 1) / 2)):
            assert abs(float(np.mean(a * b))) < 6.5 / math.sqrt(len(a))


def test_both_samplers_agree(draws: npt.NDArray[np.int64]) -> None:
    """Two-sample tests against OpenDP's discrete Gaussian: its law differs by less than 2⁻⁴⁵."""
    other = DiscreteGaussian().sample(60_000)
    mine = draws[:1_000_000]
    assert stats.ks_2samp(mine, other, method="asymp").pvalue > ALPHA
    edges = np.round(stats.norm.ppf(np.linspace(0.0, 1.0, 65)[1:-1]) * SIGMA).astype(np.int64)
    table = [np.bincount(np.searchsorted(edges, x), minlength=64) for x in (mine, other)]
    assert stats.chi2_contingency(table).pvalue > ALPHA


# What it may not depend on, and what may not carry it.


def test_no_seed_reaches_the_noise() -> None:
    torch = pytest.importorskip("torch")
    assert not inspect.signature(RoundedGaussian).parameters
    assert not inspect.signature(SecretStream).parameters
    seen = set()
    for _ in range(3):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        seen.add(tuple(RoundedGaussian().sample(8).tolist()))
    assert len(seen) == 3


MODULES = (blocks_module, gaussian_ratio, rounded_gaussian, secret_stream, noise_reservoir)
FLOATING = {
    *("float", "float16", "float32", "float64", "longdouble", "divide", "true_divide"),
    *("exp", "log", "sqrt", "erf", "normal", "random"),
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_code_of_the_noise_has_no_float(module: ModuleType) -> None:
    """No float literal, no true division, no floating dtype or function, by syntax.

    But for `context.exp` and `context.divide`: decimal arithmetic in a bracket of integers.
    """
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float | complex))
        assert not (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div))
        if getattr(node, "attr", getattr(node, "id", None)) in FLOATING:
            assert module is gaussian_ratio
            assert ast.unparse(node) in ("context.exp", "context.divide")


def test_no_float_appears_while_sampling() -> None:
    """Every local variable of every function on the way, at each return: integers and booleans."""
    files = {module.__file__ for module in MODULES}
    seen: set[str] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "return":
            seen.add(frame.f_code.co_name)
            for name, value in itertools.chain(frame.f_locals.items(), [("result", argument)]):
                parts = value if isinstance(value, tuple) else (value,)
                for part in parts:
                    assert not isinstance(part, float | np.floating), (frame.f_code, name)
                    if isinstance(part, np.ndarray):
                        assert part.dtype.kind in "iub", (frame.f_code, name, part.dtype)
        return trace

    sampler = BlockSampler(gaussian_blocks(3, 0, 40), SecretStream())
    sys.settrace(trace)
    try:
        sampler.sample(20_000)
        RoundedGaussian().sample(20_000)
        gaussian_blocks(3, 0, 41)
    finally:
        sys.settrace(None)
    assert {"sample", "_trials", "_decide", "_decide_exactly", "bracket", "fill"} <= seen


def test_counts(served: GaussianBlocks) -> None:
    sampler = RoundedGaussian()
    assert sampler.sample(0).shape == (0,)
    assert sampler.sample(2**15 + 1).shape == (2**15 + 1,)
    with pytest.raises(ValueError, match="count"):
        sampler.sample(-1)


def test_the_accounting_counts_this_sampler() -> None:
    assert 2**SIGMA_BITS == SIGMA
    close = noise.closeness("rounded-gaussian")
    assert close.eta == 0.0
    # The mass beyond 40σ is 2^-1159.8.
    assert math.log2(close.tau) >= (stats.norm.logsf(40.0) + math.log(2.0)) / math.log(2.0)
