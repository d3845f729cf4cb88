"""Replicas and their one witness: what it has not seen is neither sent nor trusted."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from privacy.errors import LedgerRolledBack
from privacy.ledger import Ledger
from privacy.ledger.witness import Witness, read_heads
from privacy.receipts import SignedHead

pytestmark = pytest.mark.parametrize("place", ["postgresql"], indirect=True)


def test_a_replica_without_the_witness_sends_nothing_that_came_after_its_opening(
    place, plan, asker, monkeypatch
) -> None:
    """Its host does not see the shared storage, while another replica has committed, no more."""
    gate, committed = threading.Event(), threading.Event()
    advance = Witness.advance

    def slow(self: Witness, head: SignedHead) -> None:
        committed.set()
        assert gate.wait(120)
        advance(self, head)

    with place.create(plan) as one:
        asker.settle(one, "r1", "a")
        with (
            Ledger.open(place.folder, witness=place.witness.with_name("away")) as blind,
            ThreadPoolExecutor(1) as pool,
        ):
            assert "missing" in blind.rolled_back
            keys = [asker.pending(blind, name).key for name in "ab"]
            monkeypatch.setattr(Witness, "advance", slow)
            settling = pool.submit(asker.settle, one, "r2", "b")
            try:
                assert committed.wait(120)
                for sending in (
                    lambda: blind.find("alice", "r2", asker.content),
                    lambda: asker.settle(blind, "r2", "b"),
                    lambda: blind.stored(keys),
                ):
                    with pytest.raises(LedgerRolledBack, match="after this one was opened"):
                        sending()
                # Of several requests only that one is refused.
                with blind.look() as look:
                    old, new, none = look.stored_all([keys[:1], keys, [b"n" * 32]])
                    found, refused = look.find_all(
                        [("alice", name, asker.content) for name in ("r1", "r2")]
                    )
                assert (old, none) == ({keys[0]: b"noisy a"}, {})
                assert isinstance(new, LedgerRolledBack)
                assert found.repeated
                assert isinstance(refused, LedgerRolledBack)
                assert read_heads(place.witness.read_bytes())[0].entry == 1
            finally:
                gate.set()
            settling.result()
            # What it saw at its opening it sends, and the log as it was then.
            assert blind.stored(keys[:1]) == {keys[0]: b"noisy a"}
            assert asker.settle(blind, "r1", "a").repeated
            assert b'"entry":1,' in list(blind.log_lines())[-1]


def test_an_old_witness_does_not_pass_because_replicas_were_restarted(place, plan, asker) -> None:
    """Each opening writes under a new name; what was witnessed by then needs no line any more."""
    with place.create(plan) as ledger:
        asker.settle(ledger, "r0", "s0")
    day_1 = place.witness.read_bytes()
    for number in range(1, 5):
        with place.open() as ledger:
            asker.settle(ledger, f"r{number}", f"s{number}")
    day_2 = place.copy("day2")
    with place.open() as ledger:
        receipt = asker.settle(ledger, "r9", "s9").receipt
    place.restore(day_2)
    place.witness.write_bytes(day_1)
    with place.open() as ledger:
        assert "too old" in ledger.rolled_back
        with pytest.raises(LedgerRolledBack):
            asker.settle(ledger, "m9", "s9", payload=b"a second draw")
    with place.open(trusted_head=receipt) as ledger:
        assert "restored from an older copy" in ledger.rolled_back


def test_a_replica_that_opens_between_anothers_commit_and_witness(
    place, plan, asker, monkeypatch
) -> None:
    """It witnesses the other's group and drops its line; the other goes on, and a crash is none."""
    advance = Witness.advance
    with place.create(plan) as one:
        asker.settle(one, "r1", "a")
        earlier = place.witness.read_bytes()

        def late(self: Witness, head: SignedHead) -> None:
            monkeypatch.setattr(Witness, "advance", advance)
            with place.open() as other:
                assert other.rolled_back is None
                assert asker.settle(other, "r3", "c").receipt.entry == 3
            advance(self, head)

        monkeypatch.setattr(Witness, "advance", late)
        assert asker.settle(one, "r2", "b").receipt.entry == 2
        kept = place.witness.read_bytes()
        assert [head.entry for head in read_heads(kept)] == [3, 2]
        assert asker.settle(one, "r4", "d").receipt.entry == 4
    place.witness.write_bytes(kept)
    with place.open() as again:
        assert again.rolled_back is None
    place.witness.write_bytes(earlier)
    with place.open() as again:
        assert "too old" in again.rolled_back
