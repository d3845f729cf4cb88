"""`privacy-audit canaries`: a lower bound of ε from one training run."""

import json as jsonlib
from dataclasses import asdict
from pathlib import Path

from privacy.audit.commands.failing import fail
from privacy.audit.commands.options import Flag
from privacy.audit.membership.one_run import audit
from privacy.audit.membership.score_file import read_canaries
from privacy.errors import PrivacyError


def canaries(
    file: Path,
    *,
    epsilon: float,
    delta: float = 1e-5,
    share: float = 0.2,
    confidence: float = 0.95,
    json: Flag = False,
) -> None:
    """Bound ε from below by one training run whose canaries were put in by fair coins.

    Exit code 0 when the claim stands, 1 when the bound passes it.

    Parameters
    ----------
    file
        .npz with `scores` [m], higher where a canary seems to be in, and `included`, bool [m].
    epsilon
        Claimed ε under add/remove: a coin leaves a record out, it does not replace one.
    delta
        δ of the same claim.
    share
        Of the canaries guessed from either end of the scores; choose it before you see a coin.
    confidence
        Of the lower bound.
    json
        Print one JSON object.
    """
    scores, included = read_canaries(file)
    if not 0.0 < share <= 0.5:
        raise PrivacyError(f"--share is {share}; it must lie above 0 and be at most 0.5")
    side = max(1, int(share * len(scores)))
    run = audit(scores, included, positive=side, negative=side, delta=delta, confidence=confidence)
    exceeds = run.exceeds(epsilon)
    if json:
        print(jsonlib.dumps({"exceeds": exceeds, "claimed": epsilon, **asdict(run)}))
    else:
        print(f"guesses      {run.right:,} of {run.guesses:,} right, {run.canaries:,} canaries")
        print(
            f"bound        ε ≥ {run.epsilon:.4f} at δ = {delta:g}, add/remove, with "
            f"{confidence:.4g} confidence"
        )
        print(f"claim        ε = {epsilon:g}: {'REFUTED' if exceeds else 'not refuted'}")
    if exceeds:
        fail("the claim does NOT hold")
