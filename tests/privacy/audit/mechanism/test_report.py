"""The verdict of an audit: what so few trials show is no pass; and what ctrl-C leaves behind."""

import pytest

from privacy.audit.mechanism.report import Audit, Judged
from privacy.audit.mechanism.screen import audit_text
from privacy.audit.mechanism.statistics import Mistakes, least_expected, trials_to_show
from privacy.audit.mechanism.trials import Trials


def audit_of(trials: int, mistakes: int) -> Audit:
    main = Trials(2, 1.0, 1.0, Mistakes(trials, mistakes, mistakes))
    return Audit((Judged("worst case", "", main, 1e-3),), (), 0.99, 1e-8, 1.0, 4 * trials)


def test_an_audit_that_shows_nine_tenths_of_the_claim_passes() -> None:
    audit = audit_of(100_000, 30_854)
    assert audit.inconclusive is None
    assert audit_text(audit).splitlines()[-1].startswith("pass  ")
    assert audit.to_json()["conclusive"]


def test_an_audit_of_too_few_trials_is_inconclusive_and_says_how_many_it_takes() -> None:
    audit = audit_of(400, 123)
    content = audit.to_json()
    assert (content["sound"], content["conclusive"]) == (True, False)
    last = audit_text(audit).splitlines()[-1]
    assert last.startswith("inconclusive: 400 trials show at least 0.")
    assert "; 56,000 are needed to be sure to show 0.9" in last
    assert "\npass" not in audit_text(audit)


def test_an_audit_that_fails_is_no_inconclusive_one() -> None:
    audit = audit_of(400, 1)
    assert audit.inconclusive is None
    assert not audit.to_json()["conclusive"]
    assert "FAIL" in audit_text(audit).splitlines()[-1]


@pytest.mark.parametrize("distance", [0.3, 1.0, 4.0])
def test_the_trials_that_it_takes_are_enough_and_a_tenth_fewer_are_not(distance) -> None:
    needed = trials_to_show(0.9, distance, 1e-3, 1e-8)
    assert least_expected(distance, needed, 1e-3, 1e-8) >= 0.9 * distance
    assert least_expected(distance, int(0.9 * needed), 1e-3, 1e-8) < 0.9 * distance


def test_ctrl_c_says_what_became_of_the_services(run, monkeypatch) -> None:
    def stopped(*_arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("privacy.audit.commands.mechanism.audit", stopped)
    code, out, err = run("mechanism")
    assert (code, out) == (130, "")
    assert err == "stopped; the services were ended and their throw-away ledgers removed\n"
