"""Charges, caps, training and plan: what a signed log must add up to."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from privacy.budget import spent_epsilon
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
