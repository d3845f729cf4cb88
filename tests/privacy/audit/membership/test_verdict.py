"""Rows beside caps: the more is judged at once, the more it takes."""

import numpy as np

from privacy.audit.membership.trade_off import Claim
from privacy.audit.membership.verdict import judge, rows_text


def test_many_attacks_judged_together_share_one_error() -> None:
    """12 of 40 members above every non-member: a refutation alone, and not among a thousand."""
    members = np.r_[np.full(12, 9.0), np.full(28, -9.0)]
    others = np.linspace(0.0, 1.0, 400)
    claim = Claim(1.0, 0.0)
    (alone,) = judge("alone", members, others, claim, rates=(1e-2,))
    (among,) = judge("among", members, others, claim, rates=(1e-2,), comparisons=10**6)
    assert alone.exceeds
    assert not among.exceeds
    # What is shown does not depend on what it is judged with.
    assert (alone.point, alone.cap, alone.cap_at_bound) == (
        among.point,
        among.cap,
        among.cap_at_bound,
    )
    assert alone.cap == claim.cap(1e-2) < alone.cap_at_bound == claim.cap(alone.point.false_high)


def test_a_row_says_rate_interval_cap_and_verdict() -> None:
    generator = np.random.default_rng(2)
    rows = judge(
        "an attack", 5.0 + generator.random(100), generator.random(1000), Claim(1.0, 0.0, 0.3)
    )
    head, first, second = rows_text(rows)
    assert "FPR" in head
    assert first.split()[:5] == ["an", "attack", "0.001", "1.0000", "[0.9638,"]
    assert second.split()[2] == "0.01"
    assert second.endswith("EXCEEDS the claim")
    assert rows[1].to_json()["claim"] == {"epsilon": 1.0, "delta": 0.0, "mu": 0.3}
    assert rows[1].to_json()["mu_low"] > 3.0
