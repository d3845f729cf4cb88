"""The audit of a running service, as processes over the wire: what it passes and what it catches.

The noise is secret and unseeded, so every assertion holds but once in a million runs. With
--confidence 0.999999 a bound is above its claim once in a million audits; that a case shows less
than it must, and that a check of the noise rejects a right one, happens once in 10⁸ each.
"""

import json
import shlex
import sys

import pytest

from teacher_server.certificates import issue_client, issue_server, make_authority
from teacher_server.identity import Role
from tests.privacy.audit.mechanism.patched_service import (
    ALONE,
    REUSED,
    REVERSED,
    SCALED,
    SEEDED,
    SHIFTED,
    audited,
)

SURE = ("--confidence", "0.999999")
# 8,000 samples a side: 64,000 values of the hint, whose variance is known within 0.0056 (one
# standard deviation). The check allows 5.73 of those; 0.95² is 17 of them away.
SMALL = (*SURE, "--trials", "4000", "--others", "0")


def card():
    """The public card of a teacher; no weights are beside it."""
    taps = [("logits", "logits", 3, 2.0), ("probabilities", "probabilities", 3, 1.0)]
    taps += [("hint", "hint", 6, 0.4)]
    return {
        "version": "0" * 32,
        "mode": "ensemble",
        "teachers": 20,
        "dataset": "glyphs",
        "classes": ["a", "b", "c"],
        "input_shape": [1, 8, 8],
        "input_dtype": "uint8",
        "normalisation": {"mean": [127.5], "std": [127.5]},
        "taps": [
            {
                "tap": {"name": name, "kind": kind, "shape": [size], "temperature": None},
                "bound": bound,
                "bound_source": "public samples",
            }
            for name, kind, size, bound in taps
        ],
    }


def failed(found):
    return [check["name"] for check in found["checks"] if not check["holds"]]


def test_the_right_service_passes_every_case(tmp_path):
    """In the likeness of a trained teacher, at the radii that it is served with."""
    (tmp_path / "card.json").write_text(json.dumps(card()))
    served = ("--like", str(tmp_path), "--epsilon", "8", "--answers", "6")
    shares = ("--share", "logits=1", "--share", "probabilities=2", "--share", "hint=1")
    code, found, errors = audited(*SURE, *served, *shares, "--trials", "1000", "--others", "50")
    assert code == 0, (found.get("faults"), errors)
    assert found["sound"]
    cases = {case["case"]: case for case in found["cases"]}
    assert {"worst case", "spread", "poisoned: 1e30", "poisoned: NaN", "adaptive"} <= set(cases)
    # Two samples of six that share μ² of (8, 1e-5): μ = 1.6657 (dp-accounting's curve).
    assert cases["worst case"]["claimed_mu"] == pytest.approx((2 / 6) ** 0.5 * 1.6657, rel=1e-3)
    assert cases["worst case, probabilities"]["samples_a_trial"] == 4
    # The zero row is B from a row of the ball and 1 from a one-hot row, not 2B and √2: a quarter of
    # half of the charge, a half of the other.
    poisoned = cases["poisoned: NaN"]
    expected = (0.5 / 4 + 0.5 / 2) ** 0.5 * poisoned["claimed_mu"]
    assert poisoned["known_distance"] == pytest.approx(expected, rel=1e-3)
    assert found["samples_asked"] == 2 * 1000 * 2 + 6 * 2 * 50 * 9


def test_noise_that_is_a_twentieth_too_small_fails(caught):
    code, found, errors = audited(*SMALL, patch=SCALED)
    assert code == 1, errors
    assert "variance of hint" in failed(found)
    (fault, *_) = (fault for fault in found["faults"] if "of the claimed variance" in fault)
    caught["noise scaled by 0.95, in a running service"] = f"privacy-audit mechanism: {fault}"


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        (REUSED, "noise reused between two requests"),
        (REVERSED, "noise served again backwards"),
        (SHIFTED, "noise served again one value further"),
        (SEEDED, "a seedable generator"),
    ],
    ids=["between requests", "backwards", "shifted by one", "by a seed"],
)
def test_noise_that_is_used_again_fails(patch, name, caught):
    code, found, errors = audited(*SURE, "--trials", "600", "--others", "0", patch=patch)
    assert code == 1, errors
    assert "noise used again" in failed(found)
    (fault, *_) = (fault for fault in found["faults"] if "noise used again" in fault)
    caught[f"{name}, in a running service"] = f"privacy-audit mechanism: {fault}"


def test_a_tap_that_is_drawn_twice_when_asked_alone_fails():
    """Both draws are charged, as published: only who asks tap by tap finds that there are two."""
    code, found, errors = audited(*SURE, "--trials", "100", "--others", "0", patch=ALONE)
    assert code == 1, errors
    assert failed(found) == [
        "answers that changed when asked tap by tap",
        "receipts of taps asked one by one",
    ]


def test_a_command_that_starts_no_service_is_a_mistake_and_no_verdict():
    code, found, errors = audited("--server-command", f"{sys.executable} -c 'raise OSError(17)'")
    assert (code, found) == (2, {})
    assert "OSError: 17" in errors
    assert "Traceback" not in errors.split("it said")[0]


def test_a_service_with_certificates_is_asked_with_one(tmp_path):
    authority = make_authority(tmp_path / "ca")
    issue_server(authority, tmp_path / "server", ["localhost"])
    issue_client(authority, tmp_path / "auditor", Role.CLIENT, "auditor")
    words = [sys.executable, "-m", "teacher_server.rehearsal", "--certs", str(tmp_path / "server")]
    options = ("--server-command", shlex.join(words), "--certs", str(tmp_path / "auditor"))
    code, found, errors = audited(*SURE, *options, "--trials", "200", "--others", "0")
    assert code == 0, (found.get("faults"), errors)
    assert found["samples_asked"] == 2 * 200 * 2


@pytest.mark.long
def test_the_worst_case_lies_between_nine_tenths_of_the_claim_and_the_claim():
    """10⁵ trials a side: the bound's own spread is 0.006 of μ, its margin below the estimate 0.044
    at 0.999999 for eleven cases together; under 0.9 it would be 9 of those away."""
    code, found, errors = audited(*SURE)
    assert code == 0, (found.get("faults"), errors)
    main = found["cases"][0]
    assert main["trials_a_side"] == 100_000
    assert 0.9 < main["mu_lower"] / main["claimed_mu"] <= 1.0


@pytest.mark.long
def test_the_worst_case_shows_noise_that_is_a_twentieth_too_small():
    """μ is 1/0.95. With 160,000 trials and confidence 0.998 the bound lies 0.0526 − 0.0204 above
    the claim, which is 6.9 of its standard deviations (0.0047)."""
    options = ("--trials", "160000", "--others", "0", "--confidence", "0.998", "--tap", "hint:8:1")
    code, found, errors = audited(*options, "--radius", str(2**18), patch=SCALED)
    assert code == 1, errors
    main = found["cases"][0]
    assert main["mu_lower"] > main["claimed_mu"]
    assert "leaks more than it charges" in main["fault"]
