"""A ledger is handed over to a new signing key: whole or not at all, endorsed, and for good."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.audit.ledger_check import check
from privacy.audit.log import parse_log
from privacy.errors import (
    LedgerCorrupt,
    LedgerFault,
    LedgerInUse,
    LedgerMismatch,
    LedgerRolledBack,
    SignatureInvalid,
)
from privacy.key_history import KeyHistory, endorse
from privacy.ledger import Ledger, group, rotation
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.witness import Witness
from privacy.receipts import Receipt, read_public_key, verify


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in (".pem", ".key")}


KEY_FILES = {"signing-key.pem", "public-key.pem", "secret.key"}


def test_what_comes_after_is_signed_by_the_new_key(place, plan, asker) -> None:
    with place.create(plan) as ledger:
        first = ledger.public_key
        before = asker.settle(ledger, "r1", "a").receipt
        key = ledger.rotate_key()
        assert key.public_key == ledger.public_key != first
        assert key.entry == 2
        assert ledger.head().entry == 2
        after = asker.settle(ledger, "r2", "b").receipt
        verify(before, first)
        verify(ledger.head(), key.public_key)
        verify(after, key.public_key)
        with pytest.raises(SignatureInvalid):
            verify(after, first)
        history = ledger.key_history
        assert [item.public_key for item in history] == [first, key.public_key]
        history.verify(first)
        # Stored answers are found and free, the old receipt is the one that was signed then.
        again = asker.settle(ledger, "r1", "a")
        assert (again.receipt, again.repeated) == (before, True)
        assert asker.settle(ledger, "r3", "a").receipt.charge == 0
    with place.open() as ledger:
        assert ledger.rolled_back is None
        assert ledger.public_key == key.public_key
        assert asker.settle(ledger, "r4", "c").receipt.entry == 5


def test_it_charges_nothing_and_can_be_done_again(place, plan, asker) -> None:
    with place.create(plan) as ledger:
        spent = asker.settle(ledger, "r1", "a").receipt.spent
        keys = [ledger.rotate_key() for _ in range(3)]
        assert ledger.budget().spent == spent
        assert [key.entry for key in keys] == [2, 3, 4]
    with place.open() as ledger:
        assert list(ledger.key_history)[1:] == keys
    assert files(place.folder) == KEY_FILES


def test_the_old_key_is_nowhere_any_more(place, plan) -> None:
    with place.create(plan) as ledger:
        old = LedgerKeys.read(place.folder).signing_pem()
        descriptor = os.open(place.folder / "signing-key.pem", os.O_RDONLY)
        ledger.rotate_key()
    # The very bytes on disk, by a handle that outlives the name.
    assert os.pread(descriptor, 1000, 0) == bytes(len(old))
    os.close(descriptor)
    assert files(place.folder) == KEY_FILES
    assert read_public_key(place.folder / "public-key.pem") == LedgerKeys.read(place.folder).public
    assert (place.folder / "signing-key.pem").stat().st_mode & 0o777 == 0o600


class _PowerCut(BaseException):
    pass


STEPS = {
    "the new key is on disk": ("prepare", "after"),
    "the entry is durable": ("settle", "before"),
    "the old key is overwritten": ("_overwrite", "after"),
    "the public key is replaced": ("replace_durably", "after"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_leaves_one_key_in_force(place, plan, asker, monkeypatch, step) -> None:
    name, moment = STEPS[step]
    true = getattr(rotation, name)

    def cut(*arguments, **options):
        if moment == "after":
            true(*arguments, **options)
        raise _PowerCut

    ledger = place.create(plan)
    first = ledger.public_key
    before = asker.settle(ledger, "r1", "a").receipt
    with monkeypatch.context() as patched:
        patched.setattr(rotation, name, cut)
        with pytest.raises(_PowerCut):
            ledger.rotate_key()
    ledger.close()
    durable = name != "prepare"
    # Readers see it at once, without mending anything.
    with place.open(read_only=True) as reader:
        assert (reader.public_key != first) == durable
        assert reader.rolled_back is None
        assert rotation.unfinished(place.folder)
    with place.open() as ledger:
        assert (ledger.public_key != first) == durable
        assert ledger.rolled_back is None
        assert files(place.folder) == KEY_FILES
        assert read_public_key(place.folder / "public-key.pem") == ledger.public_key
        receipt = asker.settle(ledger, "r2", "b").receipt
        verify(receipt, ledger.public_key)
        verify(before, first)
        assert ledger.rotate_key().entry == receipt.entry + 1


def test_a_new_key_file_that_is_in_the_way_is_told(place, plan) -> None:
    with place.create(plan) as ledger:
        (place.folder / rotation.NEXT_KEY).write_bytes(b"")
        with pytest.raises(LedgerInUse, match="another rotation"):
            ledger.rotate_key()


def test_the_wrong_key_files_are_refused(place, plan) -> None:
    with place.create(plan) as ledger:
        old = {name: (place.folder / name).read_bytes() for name in KEY_FILES}
        ledger.rotate_key()
    for name, content in old.items():
        (place.folder / name).write_bytes(content)
    with pytest.raises(LedgerMismatch, match="rotated on another host"):
        place.open()


def test_an_exhausted_ledger_keeps_its_key(place, plan, asker) -> None:
    with place.create(plan) as ledger:
        first = ledger.public_key
        asker.settle(ledger, "r1", "a")
    place.witness.unlink()
    with place.open() as ledger:
        assert ledger.rolled_back is not None
        with pytest.raises(LedgerRolledBack):
            ledger.rotate_key()
        assert ledger.public_key == first
    assert files(place.folder) == KEY_FILES


def test_a_key_that_the_old_one_did_not_endorse_is_no_key(place, plan, monkeypatch) -> None:
    """Hashes, head and key files all fit: only the endorsement is a stranger's."""
    stranger = Ed25519PrivateKey.generate()
    with place.create(plan) as ledger, monkeypatch.context() as patched:
        patched.setattr(group, "endorse", lambda _, *rest: endorse(stranger, *rest))
        ledger.rotate_key()
    with pytest.raises(LedgerCorrupt, match="is not endorsed by the one before it"):
        place.open()


def test_a_head_of_before_still_vouches(place, plan, asker) -> None:
    """The witness may be one commit behind: its head is by the old key."""
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
        kept = place.witness.read_bytes()
        ledger.rotate_key()
    place.witness.write_bytes(kept)
    with place.open() as ledger:
        assert ledger.rolled_back is None


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_replica_with_the_old_key_stops_and_signs_nothing(place, plan, asker) -> None:
    with place.create(plan) as first, place.open() as second:
        asker.settle(first, "r1", "a")
        asker.settle(second, "r2", "b")
        first.rotate_key()
        with pytest.raises(LedgerFault, match="signed with another key") as stopped:
            asker.settle(second, "r3", "c")
        assert isinstance(stopped.value.__cause__, LedgerMismatch)
        assert asker.settle(first, "r4", "d").receipt.entry == 4
        with pytest.raises(LedgerFault):
            second.stored([b"x" * 32])
    with place.open() as ledger:
        # Nothing of the refused request is there.
        assert [entry.request_id for entry in ledger.entries()] == ["", "r1", "r2", "", "r4"]


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_replica_may_rotate_after_others_wrote(place, plan, asker) -> None:
    with place.create(plan) as first, place.open() as second:
        asker.settle(first, "r1", "a")
        asker.settle(second, "r2", "b")
        key = first.rotate_key()
        assert key.entry == 3
        assert asker.settle(first, "r3", "c").receipt.entry == 4


def test_rotations_amid_many_callers(place, plan, asker) -> None:
    """Groups never straddle a handover: each receipt is by the key of its entry."""
    with place.create(plan) as ledger:
        first = ledger.public_key

        def ask(number: int) -> Receipt:
            return asker.settle(ledger, f"r{number}", f"sample {number}").receipt

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, number) for number in range(60)]
            handed = [pool.submit(ledger.rotate_key) for _ in range(3)]
            asked += [pool.submit(ask, number) for number in range(60, 120)]
            receipts = [future.result() for future in asked]
            keys = sorted((future.result() for future in handed), key=lambda key: key.entry)
        history = ledger.key_history
        assert list(history)[1:] == keys
        for receipt in receipts:
            verify(receipt, history.at(receipt.entry))
        assert check(
            parse_log("log", list(ledger.log_lines())),
            receipts=[(Path("held"), receipt) for receipt in receipts],
            known=[("given", KeyHistory.starting_with(ledger.ledger_id, first))],
        ).sound
    with place.open() as ledger:
        assert ledger.budget().spent == 120 * 100


@pytest.mark.parametrize("groups", [0, 1, 3])
def test_a_backup_of_before_is_an_old_copy_for_ever(place, plan, asker, groups: int) -> None:
    """It does not know the key that signed what the witness saw."""
    with place.create(plan) as ledger:
        receipt = asker.settle(ledger, "r1", "a").receipt
        head = ledger.head()
    backup = place.copy("backup")
    with place.open() as ledger:
        ledger.rotate_key()
        for number in range(groups):
            asker.settle(ledger, f"s{number}", f"s{number}")
    kept = place.witness.read_bytes()
    for trusted in (None, receipt, head):
        with Ledger.open(backup, witness=place.witness, trusted_head=trusted) as copy:
            assert "before its key was rotated" in copy.rolled_back
            with pytest.raises(LedgerRolledBack):
                asker.settle(copy, "m1", "s1", payload=b"a second draw")
    assert place.witness.read_bytes() == kept


def test_a_copy_with_the_old_key_never_writes_over_the_new_ones_head(place, plan, asker) -> None:
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
    twin = place.copy("twin")
    with Ledger.open(twin, witness=place.witness) as copy, place.open() as ledger:
        head = copy.head()
        ledger.rotate_key()
        kept = place.witness.read_bytes()
        with pytest.raises(LedgerFault, match="rotated elsewhere"):
            asker.settle(copy, "m1", "b", payload=b"a second draw")
        witness = Witness(place.witness, copy._writer.book.verify, {1: head.entry_hash}.get)
        with pytest.raises(LedgerMismatch, match="rotated elsewhere"):
            witness.advance(head)
        assert copy.budget().spent == 100
        assert place.witness.read_bytes() == kept
        asker.settle(ledger, "r2", "b")
