"""A restored copy of a ledger opens exhausted, unless a head kept elsewhere is its own."""

import shutil
from dataclasses import replace

import pytest

from privacy.errors import (
    BudgetExhausted,
    InvalidPlan,
    LedgerMismatch,
    LedgerRolledBack,
    SignatureInvalid,
)
from privacy.ledger import Ledger
from privacy.ledger.witness import read_heads


@pytest.fixture
def grown(place, plan, asker):
    """Seven entries, closed; a backup was taken after entry 4."""
    with place.create(plan) as ledger:
        receipts = [asker.settle(ledger, f"r{n}", f"s{n}").receipt for n in range(1, 5)]
    backup = place.copy("backup")
    with place.open() as ledger:
        receipts += [asker.settle(ledger, f"r{n}", f"s{n}").receipt for n in range(5, 8)]
    return receipts, backup


def test_a_ledger_that_was_closed_or_crashed_opens_as_it_was(place, grown) -> None:
    with place.open() as ledger:
        assert ledger.rolled_back is None
        assert ledger.head().entry == 7
        ledger.check("alice", charge=1, draws=1)


def test_a_restored_backup_opens_exhausted(place, grown, asker) -> None:
    _, backup = grown
    place.restore(backup)
    before = place.witness.read_bytes()
    with place.open() as ledger:
        assert ledger.rolled_back is not None
        assert "entry 7" in ledger.rolled_back
        assert "entry 4" in ledger.rolled_back
        for charge in (
            lambda: asker.settle(ledger, "r8", "s8"),
            lambda: asker.settle(ledger, "r8", "s8", charge=0, draws=0),
            # Known to the lost entries only: drawing it again would average the noise away.
            lambda: asker.settle(ledger, "r7", "s7"),
            lambda: ledger.check("alice", charge=1, draws=1),
            lambda: ledger.set_cap("alice", 5),
        ):
            with pytest.raises(LedgerRolledBack, match="older copy") as refusal:
                charge()
            assert isinstance(refusal.value, BudgetExhausted)
            assert (refusal.value.scope, refusal.value.left) == ("rollback", 0)
        state = ledger.budget("alice")
        assert (state.left, state.client_left, state.draws_left) == (0, 0, 0)
        assert state.epsilon_spent == state.promise.epsilon
        assert state.rolled_back == ledger.rolled_back
        assert ledger.head().entry == 4
    assert place.witness.read_bytes() == before


def test_stored_answers_of_a_restored_backup_are_still_served(place, grown, asker) -> None:
    receipts, backup = grown
    place.restore(backup)
    with place.open() as ledger:
        found = ledger.find("alice", "r3", asker.content)
        assert found.payloads == [b"noisy s3"]
        assert found.receipt == receipts[2]
        assert asker.settle(ledger, "r3", "s3").repeated
        key = asker.pending(ledger, "s2").key
        assert ledger.stored([key]) == {key: b"noisy s2"}


def test_a_ledger_without_its_witness_opens_exhausted(place, grown, asker) -> None:
    place.witness.unlink()
    with place.open() as ledger:
        assert "missing" in ledger.rolled_back
        with pytest.raises(LedgerRolledBack):
            asker.settle(ledger, "r8", "s8")
    assert not place.witness.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", b"\xff\xfe"])
def test_a_damaged_witness_vouches_for_nothing(place, grown, content) -> None:
    place.witness.write_bytes(content)
    with place.open() as ledger:
        assert "cannot be read" in ledger.rolled_back


def test_a_forged_witness_vouches_for_nothing(place, grown) -> None:
    receipts, backup = grown
    place.restore(backup)
    head = read_heads(place.witness.read_bytes())[0]
    forged = replace(head, entry=4, entry_hash=receipts[3].entry_hash)
    place.witness.write_bytes(forged.to_json_bytes())
    with place.open() as ledger:
        assert "was changed" in ledger.rolled_back


def test_a_crash_between_commit_and_witness_is_no_rollback(place, plan, asker) -> None:
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
        earlier = place.witness.read_bytes()
        asker.settle(ledger, "r2", "b")
    place.witness.write_bytes(earlier)
    with place.open() as ledger:
        assert ledger.rolled_back is None
        assert ledger.head().entry == 2
    assert read_heads(place.witness.read_bytes())[0].entry == 2


def test_an_old_witness_cannot_vouch_for_a_ledger_far_ahead_of_it(place, plan, asker) -> None:
    """Both restored, from backups of different age: the witness knows too little to tell."""
    with place.create(plan) as ledger:
        earlier = place.witness.read_bytes()
        for number in range(3):
            asker.settle(ledger, f"r{number}", f"s{number}")
    place.witness.write_bytes(earlier)
    with place.open() as ledger:
        assert "too old" in ledger.rolled_back


def test_two_copies_that_were_served_separately_are_found_out(place, plan, asker, tmp_path) -> None:
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
    twin, twin_witness = place.copy("twin"), tmp_path / "twin-head.json"
    shutil.copy(place.witness, twin_witness)
    with Ledger.open(twin, witness=twin_witness) as other:
        asker.settle(other, "r2", "b", payload=b"one draw")
    with place.open() as ledger:
        asker.settle(ledger, "r2", "b", payload=b"another draw")
    with Ledger.open(twin, witness=place.witness) as other:
        assert "another entry 2" in other.rolled_back


def test_a_receipt_or_head_kept_elsewhere_stands_in_for_a_lost_witness(place, grown, asker) -> None:
    receipts, _ = grown
    place.witness.unlink()
    with place.open(trusted_head=receipts[-1]) as ledger:
        assert ledger.rolled_back is None
        asker.settle(ledger, "r8", "s8")
        head = ledger.head()
    assert read_heads(place.witness.read_bytes())[0] == head
    place.witness.unlink()
    with place.open(trusted_head=head) as ledger:
        assert ledger.rolled_back is None


def test_an_old_receipt_does_not(place, grown) -> None:
    receipts, _ = grown
    place.witness.unlink()
    with place.open(trusted_head=receipts[3]) as ledger:
        assert "too old" in ledger.rolled_back


def test_a_forged_or_foreign_head_is_refused(place, grown, tmp_path, plan) -> None:
    receipts, _ = grown
    place.witness.unlink()
    with pytest.raises(SignatureInvalid):
        place.open(trusted_head=replace(receipts[-1], spent=0))
    with Ledger.create(
        tmp_path / "other", dataset_id="x", plan=plan, witness=tmp_path / "w"
    ) as other:
        head = other.head()
    with pytest.raises(LedgerMismatch, match="trusted head"):
        place.open(trusted_head=head)


def test_a_trusted_head_never_overrules_a_witness_that_knows_more(place, grown) -> None:
    receipts, backup = grown
    place.restore(backup)
    with place.open(trusted_head=receipts[3]) as ledger:
        assert "entry 7" in ledger.rolled_back


def test_the_witness_of_another_ledger_is_a_mistake_and_stays_untouched(
    place, grown, tmp_path, plan
) -> None:
    other = tmp_path / "other-head.json"
    Ledger.create(tmp_path / "other", dataset_id="x", plan=plan, witness=other).close()
    before = other.read_bytes()
    with pytest.raises(LedgerMismatch, match="is the witness of ledger"):
        Ledger.open(place.folder, witness=other)
    assert other.read_bytes() == before


def test_a_witness_inside_the_ledger_is_refused(place, plan, tmp_path) -> None:
    with pytest.raises(InvalidPlan, match="other storage"):
        Ledger.create(place.folder, dataset_id="x", plan=plan, witness=place.folder / "head.json")
    assert not place.folder.exists()
    place.create(plan).close()
    with pytest.raises(InvalidPlan, match="other storage"):
        Ledger.open(place.folder, witness=place.folder / "sub" / "head.json")


def test_reading_never_touches_the_witness(place, grown) -> None:
    _, backup = grown
    place.restore(backup)
    before = place.witness.read_bytes()
    with place.open(read_only=True) as ledger:
        assert ledger.rolled_back is not None
    assert place.witness.read_bytes() == before
