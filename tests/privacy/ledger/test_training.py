"""DP-SGD runs: reserved when the ledger is opened, used once each, never added to."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from privacy.budget import BudgetPlan, spent_epsilon
from privacy.errors import BudgetExhausted, LedgerCorrupt, RequestIdReused
from privacy.ledger import store
from privacy.ledger.database import Database
from privacy.ledger.training_charge import TrainingCharge
from privacy.receipts import verify

WEIGHTS, OTHERS = "ab" * 32, "cd" * 32
"""What the ledger's secret makes of two teachers' weights."""


@pytest.fixture
def ledger(place, training_plan):
    with place.create(training_plan) as ledger:
        yield ledger


def test_a_reserved_run_is_used_once(ledger, training_plan) -> None:
    first, second, third = training_plan.training
    assert ledger.reserved_training() == (first, second, third)
    receipt = ledger.charge_training(first, "teacher-1", WEIGHTS)
    verify(receipt, ledger.public_key)
    assert (receipt.client, receipt.request_id) == ("", "training:teacher-1")
    assert (receipt.charge, receipt.spent) == (0, 0)
    assert ledger.reserved_training() == (second, third)
    ledger.charge_training(second, "teacher-2", WEIGHTS)
    with pytest.raises(BudgetExhausted, match="reserved 2 of them") as refusal:
        ledger.charge_training(first, "teacher-3", WEIGHTS)
    assert (refusal.value.asked, refusal.value.left) == (1, 0)
    assert ledger.reserved_training() == (third,)
    entries = list(ledger.entries())
    assert [entry.kind for entry in entries] == ["open", "training", "training"]
    assert entries[1].teacher_version == "teacher-1"
    assert entries[1].details == {"run": first.to_json()}


def test_the_same_teacher_again_is_the_same_charge(ledger, place, training_plan) -> None:
    run = training_plan.training[0]
    first = ledger.charge_training(run, "teacher-1", WEIGHTS)
    assert ledger.charge_training(run, "teacher-1", WEIGHTS) == first
    assert len(ledger.reserved_training()) == 2
    ledger.close()
    with place.open() as again:
        assert again.charge_training(run, "teacher-1", WEIGHTS) == first
        assert len(again.reserved_training()) == 2
        with pytest.raises(RequestIdReused):
            again.charge_training(training_plan.training[2], "teacher-1", WEIGHTS)


def store_charge(place, content: bytes) -> None:
    """Puts the charge of teacher-1 into the tables as another program would have."""
    engine = Database.of(place.folder).writable().execution_options(**{store.WRITING: True})
    named = store.requests.c.request_id == "training:teacher-1"
    with engine.begin() as connection:
        found = connection.execute(
            update(store.requests).where(named).values(content_digest=content)
        )
        assert found.rowcount == 1
    engine.dispose()


def test_a_charge_pays_for_one_set_of_weights(ledger, place, training_plan) -> None:
    run = training_plan.training[0]
    first = ledger.charge_training(run, "teacher-1", WEIGHTS)
    for _ in range(2):
        with pytest.raises(RequestIdReused, match=r"other weights .*train anew with another"):
            ledger.charge_training(run, "teacher-1", OTHERS)
    assert ledger.head().entry == 1
    assert ledger.training_of("teacher-1") == TrainingCharge(run, WEIGHTS)
    assert ledger.training_of("teacher-2") is None
    public = b"".join(ledger.log_lines()) + first.to_json_bytes()
    assert WEIGHTS.encode() not in public
    ledger.close()
    with place.open() as again:
        assert again.charge_training(run, "teacher-1", WEIGHTS) == first
        with pytest.raises(RequestIdReused, match="other weights"):
            again.charge_training(run, "teacher-1", OTHERS)


def test_an_older_charge_names_no_weights_and_stays_one_charge(
    ledger, place, training_plan
) -> None:
    run, _, other = training_plan.training
    first = ledger.charge_training(run, "teacher-1", WEIGHTS)
    ledger.close()
    store_charge(place, TrainingCharge(run, None).content())
    with place.open() as again:
        assert again.training_of("teacher-1") == TrainingCharge(run, None)
        assert again.charge_training(run, "teacher-1", OTHERS) == first
        with pytest.raises(RequestIdReused, match="another run"):
            again.charge_training(other, "teacher-1", OTHERS)
        assert len(again.reserved_training()) == 2


@pytest.mark.parametrize("damage", ["another run", "not JSON", "no weights"])
def test_a_damaged_charge_is_none(ledger, place, training_plan, damage) -> None:
    run, _, other = training_plan.training
    ledger.charge_training(run, "teacher-1", WEIGHTS)
    ledger.close()
    content = {
        "another run": TrainingCharge(other, WEIGHTS).content(),
        "not JSON": b"\xff",
        "no weights": b'{"run":' + TrainingCharge(run, None).content() + b"}",
    }
    store_charge(place, content[damage])
    with place.open() as again, pytest.raises(LedgerCorrupt, match="entry 1"):
        again.training_of("teacher-1")


@pytest.mark.parametrize(
    "change", [{"steps": 11}, {"noise_multiplier": 3.9}, {"sample_rate": 0.02}]
)
def test_a_run_that_was_not_reserved_is_refused(ledger, training_plan, change) -> None:
    with pytest.raises(BudgetExhausted, match="reserved 0 of them"):
        ledger.charge_training(replace(training_plan.training[0], **change), "teacher-1", WEIGHTS)
    assert ledger.head().entry == 0


def test_epsilon_counts_the_reserved_runs_from_the_first_moment(
    ledger, asker, training_plan
) -> None:
    reserved = ledger.budget().epsilon_spent
    assert reserved == spent_epsilon(training_plan, 0) > 0
    ledger.charge_training(training_plan.training[0], "teacher-1", WEIGHTS)
    assert ledger.budget().epsilon_spent == reserved
    receipt = asker.settle(ledger, "r1", "a", charge=10_000).receipt
    assert reserved <= receipt.epsilon_spent <= training_plan.epsilon


def test_a_plan_without_training_has_none(place) -> None:
    with place.create(BudgetPlan(4.0, 1e-5, "record", 1000, 100)) as ledger:
        assert ledger.reserved_training() == ()
