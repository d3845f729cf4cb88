"""R(n)/R(0) of the rounded Gaussian to any precision, in integers.

R(n) = P(round(N(0, σ²)) = n) is proportional to e^{−n²/(2σ²)}·I(n), with

    I(n) = ∫_{−1/2}^{1/2} e^{−t²/(2σ²)}·cosh(nt/σ²) dt = Σ_{k even} C_k / ((k + 1)!·(2σ²)^k),
    C_0 = 1,  C_1 = n,  C_{k+1} = n·C_k − k·σ²·C_{k−1}.

Derivation and error bounds: docs/privacy/noise.md, "Exact comparison".
"""

from decimal import Context, Decimal
from math import factorial

_GUARD = 16


def rounded_gaussian_ratio(n: int, sigma_bits: int, bits: int) -> tuple[int, int]:
    """(low, high) with low ≤ 2^bits·R(n)/R(0) ≤ high, for σ = 2^sigma_bits.

    |n| ≤ σ², sigma_bits ≥ 1, bits ≥ 1. high − low ≤ 3 for bits up to 2¹⁰.
    """
    if sigma_bits < 1 or bits < 1 or abs(n) > 4**sigma_bits:
        raise ValueError(f"no ratio at n = {n}, sigma_bits = {sigma_bits}, bits = {bits}")
    fine = bits + _GUARD
    exp_low, exp_high = exponential(n * n, 2 * sigma_bits + 1, fine)
    low, high = _integral(n, sigma_bits, fine)
    low_0, high_0 = _integral(0, sigma_bits, fine)
    return (
        (exp_low * low // high_0) >> _GUARD,
        ((exp_high * high // low_0 + 1) >> _GUARD) + 1,
    )


def exponential(numerator: int, shift: int, bits: int) -> tuple[int, int]:
    """(low, high) around 2^bits·e^{−numerator/2^shift}, numerator ≥ 0; two apart.

    `decimal` rounds exp correctly, hence to within 10^−digits here.
    """
    # The quotient is a finite decimal, held exactly; 2^−bits is more than 10^−(bits/3).
    context = Context(prec=len(str(numerator)) + shift + bits // 3 + 4)
    exponent = context.divide(Decimal(-numerator), Decimal(2**shift))
    above, below = context.exp(exponent).as_integer_ratio()
    value = (above << bits) // below
    return max(0, value - 1), value + 2


def _integral(n: int, sigma_bits: int, bits: int) -> tuple[int, int]:
    """(low, high) around 2^bits·I(n)."""
    variance = 4**sigma_bits
    terms = bits // 2 + 4
    total, before, now = 0, 0, 1
    for k in range(terms + 1):
        if k % 2 == 0:
            total += (now << bits) // (factorial(k + 1) << (2 * sigma_bits + 1) * k)
        before, now = now, n * now - k * variance * before
    # Each of the floors took less than 1, and what follows the last term is less than 1.
    return total - 1, total + terms // 2 + 2
