"""`privacy-audit membership`: did an attack find out more than the claim allows?"""

import json as jsonlib
from pathlib import Path

from privacy.audit.commands.failing import fail
from privacy.audit.commands.options import Flag
from privacy.audit.membership.roc import RATES
from privacy.audit.membership.score_file import read_scores
from privacy.audit.membership.trade_off import Claim
from privacy.audit.membership.verdict import COLUMNS, judge, rows_text


def membership(
    scores: Path,
    *,
    epsilon: float,
    delta: float = 1e-5,
    mu: float | None = None,
    noise_sd: float = 0.0,
    fpr: tuple[float, ...] = RATES,
    json: Flag = False,
) -> None:
    """Hold a membership inference attack beside the cap that a privacy claim puts on every attack.

    The scores are the auditor's own, measured on benchmark data. Exit code 0 when the claim stands,
    1 when they refute it (at 95 %, all rates together).

    Parameters
    ----------
    scores
        .npz with `members` and `non_members`, higher where the attacker believes "member"; or with
        `shadow`, `shadow_member` [runs, targets], `observed` and `observed_member`
        [trials, targets], from which the likelihood ratios are computed.
    epsilon
        Claimed ε, under the adjacency that the attack played.
    delta
        δ of the same claim.
    mu
        μ of the same claim where it is Gaussian: the cap is then exact, and lower.
    noise_sd
        Standard deviation of known noise on `observed` that the shadow runs do not carry.
    fpr
        False-positive rates.
    json
        Print one JSON object.
    """
    found = read_scores(scores, noise_sd)
    claim = Claim(epsilon, delta, mu)
    rows = judge(found.attack, found.members, found.non_members, claim, rates=fpr)
    exceeds = any(row.exceeds for row in rows)
    if json:
        content = {"exceeds": exceeds, "rows": [row.to_json() for row in rows]}
        print(jsonlib.dumps(content))
    else:
        trials = f"{len(found.members):,} members, {len(found.non_members):,} non-members"
        print(*rows_text(rows), COLUMNS, trials, sep="\n")
        print(
            "REFUTED: more was found out than the claim allows"
            if exceeds
            else "not refuted: no attack here passes the cap; another one might come closer"
        )
    if exceeds:
        fail("the claim does NOT hold")
