"""From the numbers of a forecast to one sentence, and to what would help."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from privacy.accounting import NAMES_CLASSES
from privacy.audit.answer_model import clean_answers, top1_agreement
from privacy.audit.proposal import Proposal, TapForecast

GOOD_AGREEMENT = 0.9
"""From here on the noise is a small part of what is wrong with a label."""

POOR_AGREEMENT = 0.5
"""Below this a label is more often changed by the noise than not: useless."""

MEANINGFUL_EPSILON = 10.0
"""Above this the odds may change by more than e¹⁰ ≈ 22,000: the verdict says so."""


def judge(
    proposal: Proposal, taps: Sequence[TapForecast], shares: npt.ArrayLike | None = None
) -> tuple[bool, str, tuple[str, ...]]:
    """Whether the answers are of use, the sentence that says so, and what would help.

    `shares` as in `planning.forecast`. The best of the label taps decides; without one, the
    clearest hint.
    """
    advice: list[str] = []
    if proposal.epsilon > MEANINGFUL_EPSILON:
        advice.append(
            f"ε = {proposal.epsilon:g} is no meaningful guarantee: one {proposal.unit} may change "
            f"the odds of what is seen by a factor e^{proposal.epsilon:g}"
        )
    labels = [tap for tap in taps if tap.agreement is not None]
    for tap in taps:
        if tap.release.kind not in NAMES_CLASSES and tap.signal_to_noise < 1.0:
            fitting = max(1, math.floor(tap.release.dimension * tap.signal_to_noise**2))
            advice.append(
                f"the noise of tap {tap.release.name!r} is {1.0 / tap.signal_to_noise:.1f} times "
                f"its signal: reduce it to {fitting:,} dimension{'s' if fitting > 1 else ''}, give "
                f"it a larger share, or leave it out"
            )
    if not labels:
        useful = any(tap.signal_to_noise >= 1.0 for tap in taps)
        word = "usable" if useful else "useless"
        best = max(tap.signal_to_noise for tap in taps)
        return useful, f"{word}: the clearest hint has signal-to-noise {best:.2f}", tuple(advice)
    drowned = [
        tap.release.name
        for tap in taps
        if tap.release.kind not in NAMES_CLASSES and tap.signal_to_noise < 1.0
    ]
    best_tap = max(labels, key=lambda tap: tap.agreement or 0.0)
    agreement = best_tap.agreement or 0.0
    kept = f"{agreement:.0%} of the noisy answers keep the clean answer's class"
    if agreement >= GOOD_AGREEMENT:
        if drowned:
            lost = f"the noise of {' and '.join(map(repr, drowned))} is larger than its signal"
            return True, f"good for labels only: {kept}; {lost}", tuple(advice)
        return True, f"good: {kept}", tuple(advice)
    advice.extend(_what_reaches_good(proposal, best_tap, shares))
    if agreement >= POOR_AGREEMENT:
        return True, f"noisy: only {kept}", tuple(advice)
    why = (
        f"useless, because noise of sd {best_tap.noise_sd:.3g} on each value drowns a clean answer "
        f"whose norm is {best_tap.signal_norm:.3g} (signal-to-noise "
        f"{best_tap.signal_to_noise:.2f}): only {kept}"
    )
    if proposal.mode == "single":
        why += "; one record can move one teacher's whole answer, and nothing divides the noise"
    return False, why, tuple(advice)


def _what_reaches_good(
    proposal: Proposal, tap: TapForecast, shares: npt.ArrayLike | None
) -> list[str]:
    """Fewer queries or more teachers that would bring agreement to GOOD_AGREEMENT."""
    rng = np.random.default_rng(1)
    clean = clean_answers(tap.release, proposal, shares, rng)
    low, high = 0.0, tap.noise_sd
    if top1_agreement(clean, high * 1e-6, rng)[0] < GOOD_AGREEMENT:
        return []
    for _ in range(24):
        middle = (low + high) / 2.0
        reached = top1_agreement(clean, middle, np.random.default_rng(2))[0] >= GOOD_AGREEMENT
        low, high = (middle, high) if reached else (low, middle)
    ratio = low / tap.noise_sd if tap.noise_sd else 1.0
    queries = math.floor(proposal.queries * ratio**2)
    advice = []
    if queries >= 1:
        advice.append(f"about {queries:,} queries would keep {GOOD_AGREEMENT:.0%} at this ε and k")
    if proposal.mode == "ensemble" and ratio > 0.0:
        teachers = math.ceil(proposal.teachers / ratio)
        advice.append(
            f"about {teachers:,} teachers of the same accuracy would keep {GOOD_AGREEMENT:.0%}"
        )
    elif proposal.mode == "single":
        advice.append(
            "use mode ensemble (noise divided by k) or dp-sgd (answers free once it is trained)"
        )
    return advice
