"""Bounds of a binomial rate, exact for every number of trials (Clopper & Pearson 1934)."""

from scipy.special import betainccinv, betaincinv


def rate_upper(count: int, trials: int, alpha: float) -> float:
    """The largest rate with which `count` or fewer of `trials` happen with probability ≥ alpha.

    The rate itself is above it with probability at most alpha. Raises ValueError for a count that
    `trials` cannot have.
    """
    _require(count, trials)
    # By the complement: 1 − alpha would lose the digits of a small alpha.
    return 1.0 if count == trials else float(betainccinv(count + 1, trials - count, alpha))


def rate_lower(count: int, trials: int, alpha: float) -> float:
    """The smallest rate with which `count` or more of `trials` happen with probability ≥ alpha."""
    _require(count, trials)
    return 0.0 if count == 0 else float(betaincinv(count, trials - count + 1, alpha))


def _require(count: int, trials: int) -> None:
    if not 0 <= count <= trials or trials < 1:
        raise ValueError(f"{count} successes in {trials} trials")
