"""Charges, caps, training and plan: what a signed log must add up to."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from privacy.audit.ledger_screen import ledger_text
from privacy.budget import spent_epsilon
from privacy.noise import ETA, ROUNDED_TAU, TAU
from teacher_server.rehearsal.throw_away import DATASET
from tests.privacy.audit.audited import known
from tests.privacy.audit.found import found


def test_an_honest_log_verifies_with_all_evidence(original) -> None:
    heads = [(Path("head"), head) for head in original.heads]
    report = original.with_receipts(heads=heads, known=known(original.keys))
    assert report.violations == ()
    assert (report.entries, report.receipts, report.heads) == (8, 5, 5)
    assert (report.spent, report.draws, report.training_used) == (600_000, 60, 1)
    clients = {client.client: client for client in report.clients}
    assert (clients["alice"].spent, clients["alice"].requests, clients["alice"].new_answers) == (
        400_000,
        3,
        4,
    )
    assert (clients["bob"].spent, clients["bob"].cap, clients["bob"].left) == (
        200_000,
        2_000_000,
        1_800_000,
    )
    assert clients["alice"].left == 9_400_000
    plan = report.opening.plan
    assert report.epsilon_spent == spent_epsilon(plan, 600_000)
    assert clients["bob"].epsilon == spent_epsilon(plan, 200_000)


def overcharged(entries):
    return [replace(e, charge=20_000_000) if e.request_id == "r4" else e for e in entries]


def charged_twice(entries):
    return [*entries, entries[-1]]


def over_the_cap(entries):
    return [
        *entries,
        replace(entries[-1], request_id="r6", charge=1_900_000),
    ]


def unreserved(entries):
    return [*entries, replace(entries[2], request_id="training:teacher-2")]


def free_lunch(entries):
    return [replace(e, details={"new": 0}) if e.request_id == "r4" else e for e in entries]


@pytest.mark.parametrize(
    ("change", "entry", "words"),
    [
        (overcharged, 6, "of a budget of 10000000"),
        (charged_twice, 8, "request id r5 was charged before, by entry 7"),
        (over_the_cap, 8, "of its cap of 2000000"),
        (unreserved, 8, "does not reserve any more"),
        (free_lunch, 6, "charges although it stores no new answer"),
    ],
)
def test_a_custodian_who_breaks_the_rules_and_signs_it(original, change, entry, words) -> None:
    lines = original.rewritten(change, signer=original.keys)
    found(original.check(lines), "accounts", entry, words)


def test_sums_that_do_not_add_up(original) -> None:
    lines = original.edited(6, spent_after=400_000)
    found(original.check(lines), "accounts", 6, "do not add up: 500000 and not 400000")


def test_a_plan_that_does_not_keep_its_promise(original) -> None:
    def generous(entries):
        details = json.loads(json.dumps(entries[0].details))
        details["plan"]["answer_units"] = 10**15
        return [replace(entries[0], details=details), *entries[1:]]

    lines = original.rewritten(generous, signer=original.keys)
    found(original.check(lines), "plan", 0, "does not keep its promise")


def opened(original, dataset_id, **plan):
    """The log of a ledger that was opened so, signed by its custodian."""

    def other(entries):
        details = json.loads(json.dumps(entries[0].details))
        details["plan"].update(plan)
        details["dataset_id"] = dataset_id
        return [replace(entries[0], details=details), *entries[1:]]

    return original.rewritten(other, signer=original.keys)


@pytest.mark.parametrize("closeness", [{"tau": 0.0}, {"tau": ROUNDED_TAU / 2, "eta": 1.0}])
def test_a_plan_for_noise_that_no_sampler_draws(original, closeness) -> None:
    report = original.check(opened(original, "glyphs/1", **closeness))
    found(report, "plan", 0, "less than any known noise source errs by")


def test_a_plan_for_the_coarser_sampler_verifies_and_names_both(original) -> None:
    plan = {"eta": ETA, "tau": TAU}
    report = original.check(opened(original, "glyphs/1", **plan))
    assert report.violations == ()
    assert "set aside for rounded-gaussian or opendp-discrete-gaussian" in ledger_text(report)
    assert "set aside for rounded-gaussian\n" in ledger_text(original.check())


def test_a_rehearsals_ledger_is_called_what_it_is(original) -> None:
    report = original.check(opened(original, DATASET, tau=0.0))
    assert (report.violations, report.rehearsal) == ((), True)
    text = ledger_text(report)
    assert "it promises nothing" in text
    assert "VERIFIED" not in text
    assert not original.check().rehearsal
    # It is no way out of anything else.
    edited = original.check(opened(original, DATASET, tau=0.0, answer_units=10**15))
    found(edited, "plan", 0, "does not keep its promise")
