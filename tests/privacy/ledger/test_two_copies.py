"""Two copies of one ledger that are open at once share a witness: one of them stops in time."""

import pytest

from privacy.errors import LedgerFault, LedgerMismatch
from privacy.ledger import Ledger
from privacy.ledger.witness import Witness, read_heads

ONLY_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@pytest.fixture
def copies(place, plan, asker):
    """A ledger of one entry and a copy of it, both open and both believed."""
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
    twin = place.copy("twin")
    with place.open() as ledger, Ledger.open(twin, witness=place.witness) as other:
        assert ledger.rolled_back is None
        assert other.rolled_back is None
        yield ledger, other, twin


def test_the_copy_that_did_not_go_on_stops_before_it_charges(place, copies, asker) -> None:
    ledger, other, twin = copies
    asker.settle(ledger, "r2", "b", payload=b"one draw")
    kept = place.witness.read_bytes()
    with pytest.raises(LedgerFault, match="another copy of it is served") as fault:
        asker.settle(other, "m2", "b", payload=b"another draw")
    assert isinstance(fault.value.__cause__, LedgerMismatch)
    assert other.budget().spent == 100
    assert place.witness.read_bytes() == kept
    asker.settle(ledger, "r3", "c")
    other.close()
    with Ledger.open(twin, witness=place.witness) as again:
        assert "restored from an older copy" in again.rolled_back


def test_of_two_copies_that_commit_at_once_one_sends(place, copies, asker, monkeypatch) -> None:
    """Both have looked at the witness before either tells it."""
    ledger, other, twin = copies
    advance = Witness.advance

    def overtaken(self: Witness, head) -> None:
        monkeypatch.setattr(Witness, "advance", advance)
        asker.settle(ledger, "r2", "b", payload=b"one draw")
        advance(self, head)

    monkeypatch.setattr(Witness, "advance", overtaken)
    with pytest.raises(LedgerFault, match="two copies"):
        asker.settle(other, "m2", "b", payload=b"another draw")
    other.close()
    with Ledger.open(twin, witness=place.witness) as again:
        assert "another entry 2 than the ledger has" in again.rolled_back


def test_a_copy_that_went_further_stops_at_the_others_branch(
    place, copies, asker, monkeypatch
) -> None:
    """Its entry numbers are past the witness's; the hash tells."""
    ledger, other, _ = copies
    with monkeypatch.context() as patch:
        # The copy commits without a word to the witness, as a witness of its own would have it.
        patch.setattr(Witness, "advance", lambda *_: None)
        patch.setattr(Witness, "newest", lambda *_: other.head())
        for number in (2, 3):
            asker.settle(other, f"m{number}", f"m{number}")
    asker.settle(ledger, "r2", "b")
    kept = place.witness.read_bytes()
    with pytest.raises(LedgerFault, match="two copies"):
        asker.settle(other, "m4", "m4")
    assert other.budget().spent == 300
    assert place.witness.read_bytes() == kept


def test_a_witness_that_goes_back_while_it_is_served_stops_the_ledger(place, ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    earlier = place.witness.read_bytes()
    asker.settle(ledger, "r2", "b")
    place.witness.write_bytes(earlier)
    with pytest.raises(LedgerFault, match="was changed while"):
        asker.settle(ledger, "r3", "c")
    assert ledger.budget().spent == 200
    assert read_heads(place.witness.read_bytes())[0].entry == 1
